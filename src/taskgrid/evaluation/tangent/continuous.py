"""Accuracy of a tangent model as a function of every real lambda, exactly.

Along a line the logit of each class is affine in lambda, but for a positive factor that all classes
share. So an image is classified right where C - 1 affine functions are not negative: on one
interval, which may be empty or reach to infinity. Sorting the ends of all intervals gives accuracy as
a step function, with its maximum and the plateau around it; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgrid.errors import DataError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_NEAR = 1e-9
"""Means of ratios that differ by less than this are compared as fractions."""


@dataclass(frozen=True)
class Intervals:
    """Where each image is classified right; only images for which that is somewhere.

    Attributes:
        low: lower ends, ``-inf`` where there is none.
        high: upper ends, ``inf`` where there is none.
        low_open: whether the image is wrong at the lower end itself: another class ties and wins.
        high_open: the same for the upper end.
        n: number of images, those that are never right among them.
    """

    low: Floats
    high: Floats
    low_open: NDArray[np.bool_]
    high_open: NDArray[np.bool_]
    n: int


@dataclass(frozen=True)
class StepCurve:
    """How many images are classified right, for every real lambda.

    Attributes:
        n: number of images.
        breaks: the K lambdas at which the count can change, increasing.
        at: counts at the breaks, shape (K,).
        between: counts before, between and after the breaks, shape (K + 1,).
    """

    n: int
    breaks: Floats
    at: Counts
    between: Counts

    def counts(self, scales: Sequence[float] | Floats) -> Counts:
        """Return how many images are classified right at some lambdas."""
        wanted = np.asarray(scales, dtype=np.float64)
        after = np.searchsorted(self.breaks, wanted, side="right")
        before = np.searchsorted(self.breaks, wanted, side="left")
        found = self.between[after]
        hit = after > before
        found[hit] = self.at[before[hit]]
        return found

    def accuracy(self, scales: Sequence[float] | Floats) -> Floats:
        """Return the share of images that are classified right at some lambdas."""
        shares: Floats = self.counts(scales) / self.n
        return shares


@dataclass(frozen=True)
class Peak:
    """The best lambda of a range.

    Attributes:
        scale: the middle of the plateau.
        low: where the plateau begins.
        high: where it ends. An end may lie just outside of the plateau, where another class ties.
        counts: images classified right on the plateau, one number for each curve.
        at_edge: whether the plateau reaches an end of the range: the best may lie outside of it.
    """

    scale: float
    low: float
    high: float
    counts: tuple[int, ...]
    at_edge: bool


def right_intervals(start: NDArray[Any], slope: NDArray[Any], labels: NDArray[Any]) -> Intervals:
    """Return where each image is classified right.

    As in ``measure.score``, of equal logits the first class wins, and a logit that is not a number
    makes an image wrong everywhere.

    Args:
        start: logits at lambda 0, ``(n, C)``; any positive factor per image will do.
        slope: their derivatives, ``(n, C)``, with the same factor.
        labels: true classes, ``(n,)``.
    """
    rows = np.arange(len(labels))
    with np.errstate(all="ignore"):
        gap = start[rows, labels][:, None] - start
        lean = slope[rows, labels][:, None] - slope
        root = -gap / lean
    classes = np.arange(start.shape[1])
    # An equal logit of an earlier class takes the image away, of a later one it does not.
    loses = classes < labels[:, None]
    rival = classes != labels[:, None]
    rising, falling = rival & (lean > 0), rival & (lean < 0)
    low = np.where(rising, root, -np.inf).max(axis=1)
    high = np.where(falling, root, np.inf).min(axis=1)
    low_open = (rising & loses & (root == low[:, None])).any(axis=1)
    high_open = (falling & loses & (root == high[:, None])).any(axis=1)
    flat = rival & (lean == 0)
    never = (flat & ((gap < 0) | ((gap == 0) & loses))).any(axis=1)
    never |= ~(np.isfinite(start) & np.isfinite(slope)).all(axis=1)
    never |= (low > high) | ((low == high) & (low_open | high_open))
    never |= (low == np.inf) | (high == -np.inf)
    keep = ~never
    return Intervals(low[keep], high[keep], low_open[keep], high_open[keep], len(labels))


def step_curve(intervals: Intervals) -> StepCurve:
    """Return the number of intervals that hold lambda, for every lambda."""
    low, high = intervals.low, intervals.high
    ends = np.concatenate([low, high])
    breaks = np.unique(ends[np.isfinite(ends)])
    lows = [np.sort(low[intervals.low_open == is_open]) for is_open in (False, True)]
    highs = [np.sort(high[intervals.high_open == is_open]) for is_open in (False, True)]
    entered = np.searchsorted(lows[0], breaks, "right") + np.searchsorted(lows[1], breaks, "left")
    left = np.searchsorted(highs[0], breaks, "left") + np.searchsorted(highs[1], breaks, "right")
    begun = np.searchsorted(np.sort(low), breaks, "right")
    ended = np.searchsorted(np.sort(high), breaks, "right")
    between = np.concatenate([[np.count_nonzero(low == -np.inf)], begun - ended])
    return StepCurve(
        intervals.n, breaks, (entered - left).astype(np.int64), between.astype(np.int64)
    )


def best_scale(curves: Sequence[StepCurve], over: Sequence[int], low: float, high: float) -> Peak:
    """Return the lambda of a range that maximises the sum of counts, each divided by a number.

    Sums are compared as fractions. Of several plateaus of the maximum the widest is taken, of equally
    wide ones the first: its middle is as far from harm as can be.

    Args:
        curves: one curve per task.
        over: what each count is divided by: the images, or what the task's expert gets right.
        low: lower end of the range.
        high: upper end.

    Raises:
        DataError: if there is no curve, or the range is empty.
    """
    if not curves or not low <= high:
        raise DataError(f"there is nothing to choose lambda from between {low} and {high}")
    pieces = _Pieces(curves, low, high)
    best = _largest(pieces.counts, over, pieces.real)
    peaks = [pieces.peak(first, last) for first, last in _runs(best)]
    return max(peaks, key=lambda peak: (peak.high - peak.low, -peak.low))


class _Pieces:
    """A range cut at all breaks of some curves: open intervals and the points between them.

    Args:
        curves: the curves.
        low: lower end of the range.
        high: upper end.
    """

    def __init__(self, curves: Sequence[StepCurve], low: float, high: float) -> None:
        self._range = (low, high)
        inner = np.unique(np.concatenate([curve.breaks for curve in curves]))
        self._points = np.unique(
            np.concatenate([inner[(inner > low) & (inner < high)], [low, high]])
        )
        self._curves = curves

    @cached_property
    def counts(self) -> Counts:
        """Counts on every piece, points and intervals in turn: shape (pieces, curves)."""
        columns = []
        for curve in self._curves:
            column = np.empty(2 * len(self._points) - 1, dtype=np.int64)
            column[::2] = curve.counts(self._points)
            column[1::2] = curve.between[
                np.searchsorted(curve.breaks, self._points[:-1], side="right")
            ]
            columns.append(column)
        return np.stack(columns, axis=1)

    @property
    def real(self) -> NDArray[np.bool_]:
        """Which pieces hold a number: between neighbouring floats there is none to name."""
        found = np.ones(2 * len(self._points) - 1, dtype=np.bool_)
        found[1::2] = np.nextafter(self._points[:-1], np.inf) < self._points[1:]
        return found

    def peak(self, first: int, last: int) -> Peak:
        """Return the pieces from ``first`` to ``last`` as a peak."""
        low, high = self._points[first // 2], self._points[(last + 1) // 2]
        return Peak(
            scale=float(low + (high - low) / 2),
            low=float(low),
            high=float(high),
            counts=tuple(int(count) for count in self.counts[first]),
            at_edge=bool(low == self._range[0] or high == self._range[1]),
        )


def _largest(counts: Counts, over: Sequence[int], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the allowed rows have the largest sum of ratios, compared as fractions."""
    sums = (counts / np.asarray(over, dtype=np.float64)).sum(axis=1)
    sums[~allowed] = -np.inf
    near = np.flatnonzero(sums >= sums.max() - _NEAR)
    distinct, which = np.unique(counts[near], axis=0, return_inverse=True)
    exact = [
        sum((Fraction(int(c), int(o)) for c, o in zip(row, over, strict=True)), Fraction())
        for row in distinct
    ]
    largest = max(exact)
    top = np.array([value == largest for value in exact])
    found = np.zeros(len(counts), dtype=np.bool_)
    found[near] = top[which.reshape(-1)]
    return found


def _runs(marked: NDArray[np.bool_]) -> Iterable[tuple[int, int]]:
    """Yield the first and last index of each run of marked places."""
    padded = np.concatenate([[False], marked, [False]]).astype(np.int8)
    steps = np.diff(padded)
    yield from zip(
        np.flatnonzero(steps == 1).tolist(),
        (np.flatnonzero(steps == -1) - 1).tolist(),
        strict=True,
    )
