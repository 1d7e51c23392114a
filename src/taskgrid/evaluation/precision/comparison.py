"""The same images through the same weights in two precisions: what moved, and whether it matters.

A comparison counts and measures, and decides nothing. A class can only change where it was a close
call. If no logit of an image moves by more than d, its largest one in float32 is at most 2 d above
the one that overtakes it; every change of a class is held against that law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Coverage of the interval of a difference of accuracies."""

Kind = Literal["base", "experts", "merge"]
"""Which weights: the base, each expert on its own task, one merge of all tasks."""

TOGETHER = ""
"""Stands in the place of a task where the images of all tasks are counted together."""


@dataclass(frozen=True)
class Flip:
    """An image whose class differs.

    Attributes:
        image: its place among the images that were compared.
        before: its class in float32; -1 where a logit is not a number.
        after: its class in the reduced precision; -1 where a logit is not a number.
        margin: how far the largest logit is above the second one in float32.
        difference: how far the logit that moved most has moved.
    """

    image: int
    before: int
    after: int
    margin: float
    difference: float

    @property
    def explained(self) -> bool:
        """Whether it was a close call: the margin is at most twice the difference."""
        return self.after >= 0 and self.margin <= 2 * self.difference


@dataclass(frozen=True)
class Comparison:
    """One set of images through one set of weights, in float32 and in a reduced precision.

    Attributes:
        kind: which weights.
        task: whose images and head; ``TOGETHER`` for those of all tasks.
        n: number of images.
        largest: largest difference of a logit.
        mean: mean over the images of their mean difference of a logit.
        correct: images that float32 classifies correctly.
        only_fp32: those of them that the reduced precision does not.
        only_reduced: images that only the reduced precision classifies correctly.
        changed: images whose class differs, right or wrong.
        unexplained: those of them that were no close call; there should be none.
        broken: images with a logit that is no finite number, but is one in float32.
        flips: the images whose class differs; empty for those of all tasks.
    """

    kind: Kind
    task: str
    n: int
    largest: float
    mean: float
    correct: int
    only_fp32: int
    only_reduced: int
    changed: int
    unexplained: int
    broken: int
    flips: tuple[Flip, ...] = ()

    @property
    def correct_reduced(self) -> int:
        """Images that the reduced precision classifies correctly."""
        return self.correct - self.only_fp32 + self.only_reduced

    @property
    def difference(self) -> float:
        """Accuracy in the reduced precision less accuracy in float32, as a fraction."""
        return (self.only_reduced - self.only_fp32) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``difference``, had other images been drawn."""
        return paired_interval(self.only_fp32, self.only_reduced, self.n)

    def passes(self, tolerance: float) -> bool:
        """Say whether accuracy may be within a tolerance, chance allowed for, and all are numbers."""
        low, high = self.interval
        return not self.broken and low <= tolerance and high >= -tolerance


def compare(
    kind: Kind,
    task: str,
    exact: NDArray[Any],
    reduced: NDArray[Any],
    labels: NDArray[np.int64],
) -> Comparison:
    """Compare two sets of logits of the same images.

    The class of an image is that of its largest logit, the first of equal ones; an image with a logit
    that is not finite has none and is never right.

    Args:
        kind: which weights.
        task: whose images and head.
        exact: logits in float32, ``(n, C)``.
        reduced: logits in the reduced precision, ``(n, C)``.
        labels: true classes, ``(n,)``.
    """
    if exact.shape != reduced.shape or exact.shape[:1] != labels.shape or not len(labels):
        raise ValueError(
            f"logits of shapes {exact.shape} and {reduced.shape} and {len(labels)} labels do not "
            "belong to the same images"
        )
    # In float64 the difference of two float32 numbers of like size is exact.
    first, second = exact.astype(np.float64), reduced.astype(np.float64)
    before, after = _classes(first), _classes(second)
    both = (before >= 0) & (after >= 0)
    moved = np.abs(np.where(both[:, None], second, 0.0) - np.where(both[:, None], first, 0.0))
    right, right_after = before == labels, after == labels
    flips = tuple(
        Flip(
            image=int(image),
            before=int(before[image]),
            after=int(after[image]),
            margin=_margin(first[image]) if before[image] >= 0 else 0.0,
            difference=float(moved[image].max()),
        )
        for image in np.flatnonzero(before != after)
    )
    return Comparison(
        kind=kind,
        task=task,
        n=len(labels),
        largest=float(moved.max()),
        mean=float(moved.mean()),
        correct=int(right.sum()),
        only_fp32=int((right & ~right_after).sum()),
        only_reduced=int((right_after & ~right).sum()),
        changed=len(flips),
        unexplained=sum(not flip.explained for flip in flips),
        broken=int(((before >= 0) & (after < 0)).sum()),
        flips=flips,
    )


def together(parts: Sequence[Comparison]) -> Comparison:
    """Count the images of several tasks together; the weights are of one kind, no image counts twice."""
    n = sum(part.n for part in parts)
    return Comparison(
        kind=parts[0].kind,
        task=TOGETHER,
        n=n,
        largest=max(part.largest for part in parts),
        mean=math.fsum(part.mean * part.n for part in parts) / n,
        correct=sum(part.correct for part in parts),
        only_fp32=sum(part.only_fp32 for part in parts),
        only_reduced=sum(part.only_reduced for part in parts),
        changed=sum(part.changed for part in parts),
        unexplained=sum(part.unexplained for part in parts),
        broken=sum(part.broken for part in parts),
    )


def paired_interval(
    only_first: int, only_second: int, n: int, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of a difference of accuracies, second less first, on the same images.

    The adjusted Wald interval of Bonett and Price (2012): one discordant image of each kind is added.
    It does not shrink to nothing where no image is discordant.

    Args:
        only_first: images that only the first classifies correctly.
        only_second: images that only the second does.
        n: number of images.
        level: coverage.
    """
    z, total = NormalDist().inv_cdf((1 + level) / 2), n + 2
    first, second = (only_first + 1) / total, (only_second + 1) / total
    centre = second - first
    half = z * math.sqrt((first + second - centre * centre) / total)
    return max(-1.0, centre - half), min(1.0, centre + half)


def _classes(logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class of each image; -1 where a logit is not finite."""
    found: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
    found[~np.isfinite(logits).all(axis=1)] = -1
    return found


def _margin(logits: NDArray[np.float64]) -> float:
    if len(logits) < 2:
        return 0.0
    second, best = np.partition(logits, -2)[-2:]
    return float(best - second)
