"""Intervals: how much a score would move had other test images been drawn.

Everything is computed from stored per-sample outcomes. Merged model and expert are compared on the
same images, so their outcomes are resampled together: what a hard image does to both cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Two models on the images of one task, counted.

    Attributes:
        both: images that both classify correctly.
        first: images that only the first one does.
        second: images that only the second one does.
        neither: the others.
        seed: seed of this task's resamples; give the same pair the same seed.
    """

    both: int
    first: int
    second: int
    neither: int
    seed: int

    @classmethod
    def of(cls, first: Hits, second: Hits, seed: int) -> Pair:
        """Count two models' per-sample correctness, both of shape (n,), on the same images."""
        if first.shape != second.shape:
            raise ValueError(
                f"outcomes of {first.shape} and {second.shape} images cannot be paired"
            )
        both = int(np.count_nonzero(first & second))
        only_first = int(np.count_nonzero(first)) - both
        only_second = int(np.count_nonzero(second)) - both
        return cls(
            both, only_first, only_second, len(first) - both - only_first - only_second, seed
        )

    @property
    def n(self) -> int:
        """Number of images."""
        return self.both + self.first + self.second + self.neither


def resample(pair: Pair, draws: int) -> tuple[Floats, Floats]:
    """Draw bootstrap samples of one task's images.

    Drawing n images with replacement and counting the four kinds is one multinomial draw.

    Returns:
        Accuracies of the first and of the second model, each of shape (draws,).
    """
    cells = np.array([pair.both, pair.first, pair.second, pair.neither], dtype=np.float64)
    generator = np.random.Generator(np.random.PCG64(pair.seed))
    counts = generator.multinomial(pair.n, cells / pair.n, size=draws)
    return (counts[:, 0] + counts[:, 1]) / pair.n, (counts[:, 0] + counts[:, 2]) / pair.n


def mean_intervals(
    pairs: Sequence[Pair], *, level: float = 0.95, draws: int = 2000
) -> tuple[Interval, Interval]:
    """Return percentile-bootstrap intervals of a mean over tasks, each task resampled by itself.

    Args:
        pairs: one per task; the first model is the one in question, the second the expert.
        level: coverage.
        draws: bootstrap samples.

    Returns:
        The intervals of the mean accuracy, and of the mean accuracy relative to the expert's. The
        latter is NaN where an expert may well get nothing right.
    """
    accuracy, relative = np.zeros(draws), np.zeros(draws)
    for pair in pairs:
        own, expert = resample(pair, draws)
        accuracy += own / len(pairs)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative += np.where(expert > 0, own / expert, np.nan) / len(pairs)
    return percentiles(accuracy, level), percentiles(relative, level)


def difference_interval(pair: Pair, *, level: float = 0.95, draws: int = 2000) -> Interval:
    """Return the percentile-bootstrap interval of the first model's accuracy minus the second's."""
    first, second = resample(pair, draws)
    return percentiles(first - second, level)


def percentiles(values: Floats, level: float) -> Interval:
    """Return the interval that leaves out as many of the values on either side."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def wilson(correct: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return Wilson score intervals of proportions (Wilson 1927), elementwise.

    Args:
        correct: counts of successes.
        n: counts of trials, positive.
        level: coverage.

    Returns:
        Lower and upper ends, inside [0, 1].
    """
    trials = np.asarray(n, dtype=np.float64)
    share = np.asarray(correct, dtype=np.float64) / trials
    z = NormalDist().inv_cdf((1 + level) / 2)
    spread = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / spread
    half = z / spread * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)
