"""The mode seam: what trains, how features come about, and what state comes out.

A mode turns an encoder into a :class:`Trainee`. The loop trains those of its parameters that
require a gradient, calls it for features, and asks it for the image tower's state at the end; it
knows nothing else. So ``attention`` only chooses parameters, ``lora`` adds parameters and multiplies
them out in ``visual_state``, and ``linear`` replaces ``forward`` by a Jacobian-vector product at
theta_0 while ``visual_state`` stays theta_0 + delta.

A mode is one module with a ``MODE`` and one line in ``taskgrid.plugins``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import nn

from taskgrid import plugins
from taskgrid.errors import TrainingError
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State


class Trainee(nn.Module):
    """What the loop trains; this one is the encoder itself.

    A mode whose forward differs, or whose parameters are not the tower's own, subclasses it.

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

    def visual_state(self) -> State:
        """Return the image tower that the training has led to, keys and dtypes as in the base."""
        return self.encoder.state()

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

    def prepare(self, encoder: ImageEncoder, options: Options, seed: int) -> Trainee:
        """Return what trains.

        Args:
            encoder: an encoder of its own with the base's weights, on the CPU, all frozen.
            options: the mode's options.
            seed: for modes that draw (the initial factors of LoRA).
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
