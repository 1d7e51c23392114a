"""The study seam: which points of the grid a question needs, and how it chooses among them.

A study sees counts, never weights or images. It is asked twice: for the coefficients and tasks
whose validation curves it needs, and, with the curves at hand, for its choice. The test split is
then read for the chosen point alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Curves:
    """Validation results of one subset at every coefficient; counts, so that sums are exact.

    Attributes:
        subset: the tasks that are merged, sorted.
        lambdas: coefficients as text, increasing; L of them.
        tasks: the T tasks that are measured.
        n: samples of each task, shape (T,).
        correct: samples classified correctly, shape (L, T).
        expert: the same for each task's own expert, shape (T,).
        zeroshot: the same for the base, shape (T,).
    """

    subset: tuple[str, ...]
    lambdas: tuple[str, ...]
    tasks: tuple[str, ...]
    n: Counts
    correct: Counts
    expert: Counts
    zeroshot: Counts


@dataclass(frozen=True)
class Choice:
    """The coefficient a study chose.

    Attributes:
        scale: lambda as text.
        at_edge: whether it is the first or last of several coefficients: the best one may then lie
            outside of what was swept.
    """

    scale: str
    at_edge: bool


class Study(Protocol):
    """A question asked of the grid."""

    @property
    def name(self) -> str:
        """Name in tables and configuration."""

    @property
    def rule(self) -> str:
        """How it chooses, in words for the table of chosen points."""

    def covers(self, subset: Sequence[str]) -> bool:
        """Return whether the study asks anything of this subset."""

    def sweep(self, lambdas: Sequence[str]) -> tuple[str, ...]:
        """Return the coefficients it tries, increasing, given those of the configuration.

        Given its own result, or the rows of several studies at once, it must return at least its own
        again: the table of chosen points is made from rows.
        """

    def tasks(self, subset: Sequence[str]) -> tuple[str, ...]:
        """Return the tasks it measures a merge of ``subset`` on, sorted."""

    def choose(self, curves: Curves) -> Choice:
        """Return the chosen coefficient; whatever else was swept must not change the choice."""
