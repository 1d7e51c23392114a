"""The image encoder: pixels in, one feature vector per image out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self, cast

import torch
from torch import nn

from taskgrid.models.card import ModelCard
from taskgrid.models.tower import build_tower, load_strictly
from taskgrid.store.weights import State


class _HasTower(Protocol):
    @property
    def model(self) -> nn.Module: ...
    def card(self) -> ModelCard: ...


class ImageEncoder(nn.Module):
    """A CLIP's image tower with its card; frozen, until a fine-tuning mode lets parameters train.

    Its features are bit for bit those of open_clip's ``encode_image(..., normalize=False)``. (On a
    CPU that holds for a model as frozen as this one: torch multiplies matrices in another order
    when weights require a gradient, with or without ``no_grad``.)

    Args:
        tower: the module that maps ``(B, 3, S, S)`` to ``(B, D)``.
        card: the model card.
    """

    def __init__(self, tower: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.tower = tower
        self.card = card

    @classmethod
    def from_clip(cls, clip: _HasTower) -> Self:
        """Wrap the image tower of a loaded CLIP; the weights are shared, not copied."""
        return cls(cast(nn.Module, clip.model.visual), clip.card())

    @classmethod
    def from_card(cls, card: ModelCard, state: Mapping[str, torch.Tensor]) -> Self:
        """Build a frozen tower from its card and copy ``state`` into it.

        Raises:
            LineageError: if keys or shapes do not fit the architecture.
        """
        encoder = cls(build_tower(card), card)
        encoder.load(state)
        return encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``(B, D)``, not normalised, of normalised images ``(B, 3, S, S)``."""
        return cast(torch.Tensor, self.tower(images))

    def state(self) -> State:
        """Return a copy of the tower's state, keys as in open_clip without ``visual.``."""
        return {name: tensor.clone() for name, tensor in self.live_state().items()}

    def live_state(self) -> State:
        """Return the tower's own tensors: what is written into them is what the encoder computes."""
        return {name: tensor.detach() for name, tensor in self.tower.state_dict().items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy a state into the tower.

        Raises:
            LineageError: if a key is missing or unknown, or a shape differs.
        """
        load_strictly(self.tower, state, "the weights", f"image tower {self.card.architecture!r}")
