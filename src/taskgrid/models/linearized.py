"""Tangent models: the image encoder replaced by its first-order expansion around theta_0.

    f_lin(x; theta) = f(x; theta_0) + J(x) (theta - theta_0),    J(x) = d f(x; theta_0) / d theta

Ortiz-Jimenez et al., "Task Arithmetic in the Tangent Space" (NeurIPS 2023), section 3. The features
are linearised; normalisation and head stay outside, so logits are not linear in theta.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Self, cast

import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.tower import build_tower, load_strictly


class LinearizedEncoder(ImageEncoder):
    """An image encoder that is affine in its weights; ``tower`` holds theta, ``origin`` theta_0.

    At theta_0 its features are those of the encoder, bit for bit (while no gradient is recorded).
    It is always in evaluation mode: a Jacobian with dropout would be that of another function.

    Args:
        tower: the module to linearise, at the weights it has now; it stays theta, to be trained or
            written into, and a frozen copy becomes theta_0.
        card: the model card.
    """

    def __init__(self, tower: nn.Module, card: ModelCard) -> None:
        super().__init__(tower, card)
        self.origin = copy.deepcopy(tower).requires_grad_(False)
        self.train(False)

    @classmethod
    def from_card(cls, card: ModelCard, state: Mapping[str, torch.Tensor]) -> Self:
        """Build a frozen tower from its card and linearise it at ``state``; theta begins there.

        Raises:
            LineageError: if keys or shapes do not fit the architecture.
        """
        tower = build_tower(card)
        load_strictly(tower, state, "the weights", f"image tower {card.architecture!r}")
        return cls(tower, card)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return f_lin ``(B, D)``, not normalised, of normalised images ``(B, 3, S, S)``.

        Gradients flow to theta alone. Works under ``torch.inference_mode``.
        """
        start = dict(self.origin.named_parameters())
        direction = {name: p - start[name] for name, p in self.tower.named_parameters()}
        value, slope = self._expand(images, direction)
        if not torch.is_grad_enabled():
            # The kernels that know forward-mode differentiation round in another way.
            value = self.origin(images)
        return value + slope

    def tangent(self, images: torch.Tensor, direction: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return J d ``(B, D)``: how the features move when theta leaves theta_0 along ``direction``.

        Args:
            images: normalised images ``(B, 3, S, S)``.
            direction: a task vector; names, shapes and device of the tower's tensors. A name that is
                missing does not move.

        Raises:
            LineageError: if the direction moves something that is no parameter, such as the running
                mean of a batch norm, or a name or shape does not fit.
        """
        return self._expand(images, self._directed(direction))[1]

    def _directed(self, direction: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        own = dict(self.origin.named_parameters())
        for name, delta in direction.items():
            if name not in own and bool(delta.any()):
                raise LineageError(
                    f"{name!r} moves, but is no parameter of image tower "
                    f"{self.card.architecture!r}; a tangent model has no derivative along it"
                )
            if name in own and own[name].shape != delta.shape:
                raise LineageError(
                    f"the direction has shape {tuple(delta.shape)} for {name!r}, but image tower "
                    f"{self.card.architecture!r} needs {tuple(own[name].shape)}"
                )
        return {
            name: direction[name].to(p.dtype) if name in direction else torch.zeros_like(p)
            for name, p in own.items()
        }

    def _expand(
        self, images: torch.Tensor, direction: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features at theta_0 and their derivative along a direction."""
        recording = torch.is_grad_enabled()

        def features(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            return cast(torch.Tensor, functional_call(self.origin, weights, (images,)))

        start = {name: p.detach() for name, p in self.origin.named_parameters()}
        # Forward-mode differentiation is refused within inference mode.
        with torch.inference_mode(False), torch.set_grad_enabled(recording), _forward_mode():
            return cast(tuple[torch.Tensor, torch.Tensor], jvp(features, (start,), (direction,)))


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Let torch differentiate forwards through attention; one thread at a time, then as before."""
    # The levels of forward-mode differentiation and both switches belong to the whole process.
    with _ONE_AT_A_TIME:
        _load_forward_rules()
        # Fused attention kernels have no forward-mode derivative (pytorch issues 117629, 154226), and
        # nn.MultiheadAttention takes a fused path of its own in evaluation mode.
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)


_ONE_AT_A_TIME = threading.RLock()


@cache
def _load_forward_rules() -> None:
    """Let torch import its derivative rules, which warn about torch's own use of TorchScript."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))
