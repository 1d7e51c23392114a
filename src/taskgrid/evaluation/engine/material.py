"""What the engine measures, and where it comes from: files or memory. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from taskgrid.evaluation.plan.setting import Split
from taskgrid.models.card import ModelCard
from taskgrid.store.images import PixelRows

if TYPE_CHECKING:
    from taskgrid.models.heads import Head
    from taskgrid.store.weights import State


@dataclass(frozen=True)
class LabelledImages(PixelRows):
    """Images of one split of one task, in split order.

    Attributes:
        labels: true classes, ``(n,)`` int64.
    """

    labels: NDArray[np.int64]


class Material(Protocol):
    """Where the engine gets what it measures: ``files.GridFiles``, or memory."""

    @property
    def card(self) -> ModelCard:
        """The base model's card."""

    @property
    def vector_count(self) -> int:
        """How many tasks have a vector."""

    def base(self) -> State:
        """Return theta_0."""
        ...

    def expert(self, task: str) -> State:
        """Return theta_t."""
        ...

    def vector(self, task: str) -> State:
        """Return tau_t."""
        ...

    def head(self, task: str) -> Head:
        """Return a task's head."""
        ...

    def images(self, task: str, split: Split) -> LabelledImages:
        """Return the images of a split."""
        ...
