"""What the engine measures, and where it comes from: files or memory. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from taskgrid.evaluation.planner import Split
from taskgrid.models.card import ModelCard

if TYPE_CHECKING:
    from taskgrid.models.heads import Head
    from taskgrid.store.weights import State


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split of one task, in split order.

    Attributes:
        pixels: ``(N, S, S, 3)`` uint8, all images of the task; may be memory-mapped.
        rows: which of them, ``(n,)``.
        labels: true classes, ``(n,)`` int64.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: slice) -> NDArray[np.uint8]:
        return self.pixels[self.rows[batch]]


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
