"""The mode seam: what trains, features, a penalty, and what state comes out.

A mode turns an encoder into a :class:`Trainee`. The loop trains those of its parameters that require a
gradient, calls it for features, adds its penalty to the loss, and asks it for the image tower's state
at the end; it knows nothing else. So ``attention`` only chooses parameters, ``lora`` adds parameters
and multiplies them out in ``visual_state``, and ``linear`` replaces ``forward`` by a Jacobian-vector
product at theta_0 while ``visual_state`` stays theta_0 + delta.

A mode is one module with a ``CARD`` and a ``MODE``, and one line in ``taskgrid.plugins``. The card says
what differs in its recipe (``recipe``), what it reads of the other tasks (``others``), and whether it
keeps factors (``factors``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import nn

from taskgrid import plugins
from taskgrid.errors import TrainingError
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State


class Images(Protocol):
    """Training images of another task, as the loop feeds a tower: cropped, normalised, on the device."""

    def __call__(self, number: int, size: int) -> torch.Tensor:
        """Return batch ``number`` of ``size`` images, ``(B, 3, S, S)`` float32.

        Batches walk through the task's images, in a new order each time round; the last of a round may
        be smaller. A batch is a function of the experiment's seed, both tasks, ``number`` and ``size``:
        a mode that derives ``number`` from the step sees the same images again after an interruption.
        They are read ahead one after the other, so ``number`` best grows by one.
        """
        ...


@dataclass(frozen=True)
class Others:
    """What a mode reads of the other tasks: what its card asks for, nothing else.

    Attributes:
        images: task -> its training images; empty unless the card asks for ``images``.
        statistics: name of a statistic -> task -> what was computed, on the CPU. A trainee that keeps
            tensors of it registers them as buffers that are not ``persistent``: they move to the device
            with it and stay out of checkpoints.
    """

    images: Mapping[str, Images] = field(default_factory=dict)
    statistics: Mapping[str, Mapping[str, State]] = field(default_factory=dict)


class Trainee(nn.Module):
    """What the loop trains; this one is the encoder itself.

    A mode whose forward differs, or whose parameters are not the tower's own, subclasses it. All that
    changes while it trains must be in its ``state_dict``, which is what a checkpoint keeps.

    Args:
        encoder: the encoder, already with the base's weights.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def card(self) -> ModelCard:
        """The card of the base model."""
        return self.encoder.card

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``(B, D)``, not normalised, of normalised images ``(B, 3, S, S)``."""
        return cast(torch.Tensor, self.encoder(images))

    def penalty(self, step: int) -> torch.Tensor | None:
        """Return what is added to the loss of update ``step`` (counted from 0); None adds nothing.

        A scalar on the device, beside the mean cross-entropy of the batch; its gradient flows into what
        trains. It is asked for once per update, however many micro-batches that has, under the recipe's
        precision. What it draws must be a function of ``step``.
        """
        return None

    def visual_state(self) -> State:
        """Return the image tower that the training has led to, keys and dtypes as in the base."""
        return self.encoder.state()

    def factors(self) -> State:
        """Return the factors that the change of the tower is a product of; this one has none.

        ``<key>.A`` ``(r, columns)`` and ``<key>.B`` ``(rows, r)``: the tensor ``key`` changed by ``B A``,
        all factors of scale included. In place of ``<key>`` of a fused projection, ``<key>.q``, ``.k`` and
        ``.v`` are its three blocks of rows. They are kept beside the expert, for methods that merge factors.
        """
        return {}

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name.

        Raises:
            TrainingError: if there is none.
        """
        chosen = {name: p for name, p in self.named_parameters() if p.requires_grad}
        if not chosen:
            raise TrainingError("the fine-tuning mode trains no parameter of this image tower")
        return chosen


class Mode(Protocol):
    """A fine-tuning mode; what others must know of it stands on its card."""

    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        """Return what trains.

        Args:
            encoder: an encoder of its own with the base's weights, on the CPU, all frozen.
            options: the mode's options.
            seed: for modes that draw (the initial factors of LoRA).
            others: what the card's ``others`` asks for of the other tasks.

        Raises:
            TrainingError: if the mode does not fit the tower.
        """
        ...


def train_only(encoder: ImageEncoder, wanted: Callable[[str], bool]) -> Trainee:
    """Return a trainee in which the tower's parameters with a ``wanted`` key train.

    Args:
        encoder: the encoder.
        wanted: says of a key (``transformer.resblocks.0.attn.in_proj_weight``) whether it trains.
    """
    for key, parameter in encoder.tower.named_parameters():
        parameter.requires_grad_(wanted(key))
    return Trainee(encoder)


def get_mode(name: str) -> Mode:
    """Return a mode by name.

    Raises:
        ConfigError: if there is none of that name; the text lists those that exist.
    """
    return cast(Mode, plugins.load("mode", name).MODE)
