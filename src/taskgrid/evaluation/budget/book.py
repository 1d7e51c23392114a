"""The book of one image set: logits by subset, what they predict of other subsets, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from taskgrid.evaluation.budget.anova import Surrogate, core_numbers
from taskgrid.evaluation.engine.measure import expected_calibration_error
from taskgrid.evaluation.engine.odds import (
    CALIBRATION_BINS,
    calibration_gaps,
    odds_against,
    score_odds,
)
from taskgrid.lattice.subsets import subset_of_number

Floats = NDArray[np.float64]

_CHUNK = 1 << 22
"""Evaluated logits that are expanded to float64 at a time."""

_BLOCK = 16
"""Merges that are predicted at a time: one matrix product instead of as many passes over memory."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one task.

    Attributes:
        task: the task's name.
        labels: true classes, shape (n,).
        logits_of: evaluates the merge of some tasks, in canonical order (none: the base): (n, C). What it
            returns is kept to the end; where that is a mapped file, memory need not hold it.
    """

    task: str
    labels: NDArray[np.int64]
    logits_of: Callable[[tuple[str, ...]], NDArray[Any]]


@dataclass(frozen=True)
class LatticeRow:
    """One merge on one image set.

    Attributes:
        subset: the merged tasks.
        task: the image set's task.
        hits: per-image correctness, one bit each, as ``numpy.packbits`` makes them.
        n: number of images.
        correct: images classified correctly.
        nll: mean negative log-likelihood.
        ece: expected calibration error.
        exact: whether it was evaluated.
        bound: bound on the error of accuracy; 0 where it was evaluated.
    """

    subset: tuple[str, ...]
    task: str
    hits: bytes
    n: int
    correct: int
    nll: float
    ece: float
    exact: bool
    bound: float

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly."""
        return self.correct / self.n


@dataclass(frozen=True)
class Guess:
    """A predicted row, and its estimated error."""

    row: LatticeRow
    expected: float

    @property
    def unit(self) -> float:
        """What errors are measured in: the estimated one, and one image."""
        return self.expected + 1 / self.row.n


class Book:
    """The logits of one image set, by subset."""

    def __init__(self, order: tuple[str, ...], images: ImageSet, outside: bool) -> None:
        self._order = order
        self._images = images
        self._bit = 1 << order.index(images.task) if images.task in order else 0
        self._everywhere = outside or not self._bit
        self._logits: dict[int, NDArray[Any]] = {}

    def measures(self, number: int) -> bool:
        """Return whether a row is asked for."""
        return self._everywhere or bool(number & self._bit)

    def evaluate(self, number: int) -> None:
        """Evaluate a merge, if it has a row here or belongs to the core."""
        if number not in self._logits and (self.measures(number) or number.bit_count() <= 2):
            subset = subset_of_number(number, self._order)
            self._logits[number] = self._images.logits_of(subset)

    def exact(self, number: int) -> LatticeRow:
        """Return an evaluated row."""
        odds = self._odds([number], slice(None))[0]
        hits, _, nll, confidence = score_odds(odds, self._images.labels)
        ece = expected_calibration_error(hits, confidence, CALIBRATION_BINS)
        return self._row(number, np.packbits(hits), float(nll.mean()), ece, exact=True)

    def guess(self, numbers: Sequence[int], decay: float) -> dict[int, Guess]:
        """Predict the rows of some merges from all that is evaluated so far."""
        asked = [number for number in numbers if self.measures(number)]
        core = set(core_numbers(len(self._order)))
        further = tuple(number for number in self._logits if number not in core)
        surrogate = Surrogate(len(self._order), further, decay)
        weights, deviation = surrogate.weights(asked), np.sqrt(surrogate.variance(asked))
        images, classes = self._shape
        bits = np.zeros((len(asked), (images + 7) // 8), dtype=np.uint8)
        nll, flips = np.zeros((2, len(asked)))
        gaps = np.zeros((len(asked), CALIBRATION_BINS))
        known = surrogate.evaluated
        # Whole bytes of hits: chunks are cut at multiples of eight images.
        step = max(8, _CHUNK // (len(known) * classes) // 8 * 8)
        for start in range(0, images, step):
            rows = slice(start, min(start + step, images))
            truth = self._images.labels[rows]
            odds = self._odds(known, rows)
            scale = _effects(odds, len(self._order))[2] / decay
            for block in range(0, len(asked), _BLOCK):
                guessed = np.tensordot(weights[block : block + _BLOCK], odds, 1)
                for at, merge in enumerate(guessed, block):
                    hits, margin, loss, confidence = score_odds(merge, truth)
                    bits[at, start // 8 : (rows.stop + 7) // 8] = np.packbits(hits)
                    nll[at] += loss.sum()
                    flips[at] += _flips(margin, scale * deviation[at]).sum()
                    gaps[at] += calibration_gaps(hits, confidence)
        ece = np.abs(gaps).sum(axis=1) / images
        return {
            number: Guess(
                self._row(number, bits[at], nll[at] / images, ece[at], exact=False),
                float(flips[at] / images),
            )
            for at, number in enumerate(asked)
        }

    @cached_property
    def squares(self) -> dict[int, float]:
        """Mean square of the effects of orders one and two, times the number of images."""
        totals = {1: 0.0, 2: 0.0}
        for _, odds in self._core():
            for order, size in _effects(odds, len(self._order)).items():
                totals[order] += float((size**2).sum())
        return totals

    @cached_property
    def surprises(self) -> dict[int, float]:
        """Errors of accuracy, where merges of two tasks are predicted from single ones."""
        core = core_numbers(len(self._order))
        at = {number: place for place, number in enumerate(core)}
        hits = dict.fromkeys(core, 0)
        for rows, odds in self._core():
            truth = self._images.labels[rows]
            for number in core:
                one, other = number & -number, number & (number - 1)
                if not other:
                    continue
                found = (odds[at[number]], odds[at[one]] + odds[at[other]] - odds[0])
                exact, guessed = (int(score_odds(each, truth)[0].sum()) for each in found)
                hits[number] += guessed - exact
        return {number: abs(off) / self._shape[0] for number, off in hits.items()}

    def _core(self) -> Iterator[tuple[slice, Floats]]:
        """Yield some images at a time, and the core's odds of them, (E, n, C)."""
        core = core_numbers(len(self._order))
        images, classes = self._shape
        step = max(1, _CHUNK // (len(core) * classes))
        for start in range(0, images, step):
            rows = slice(start, min(start + step, images))
            yield rows, self._odds(core, rows)

    def _odds(self, numbers: Sequence[int], rows: slice) -> Floats:
        labels = self._images.labels[rows]
        odds = [odds_against(self._logits[number][rows], labels) for number in numbers]
        return np.stack(odds).astype(np.float64)

    @property
    def _shape(self) -> tuple[int, int]:
        """Images and classes."""
        images, classes = self._logits[0].shape
        return images, classes

    def _row(
        self, number: int, bits: NDArray[np.uint8], nll: float, ece: float, *, exact: bool
    ) -> LatticeRow:
        images, _ = self._shape
        return LatticeRow(
            subset=subset_of_number(number, self._order),
            task=self._images.task,
            hits=bits.tobytes(),
            n=images,
            correct=int(np.unpackbits(bits, count=images).sum()),
            nll=float(nll),
            ece=float(ece),
            exact=exact,
            bound=0.0 if exact else 1.0,
        )


def _effects(odds: Floats, tasks: int) -> dict[int, Floats]:
    """Return the root mean square of each image's effects of orders one and two.

    Args:
        odds: of the core's merges first, (E, n, C).
        tasks: number of tasks.
    """
    core = core_numbers(tasks)
    at = {number: place for place, number in enumerate(core)}
    classes = max(1, odds.shape[2] - 1)  # the true class's odds are zero
    sums = {1: np.zeros(odds.shape[1]), 2: np.zeros(odds.shape[1])}
    counts = {1: 0, 2: 0}
    for number in core[1:]:
        order = number.bit_count()
        effect = odds[at[number]] - odds[at[number & (number - 1)]]
        if order == 2:
            effect = effect - odds[at[number & -number]] + odds[0]
        sums[order] += (effect**2).sum(axis=1) / classes
        counts[order] += 1
    return {order: np.sqrt(sums[order] / max(1, counts[order])) for order in sums}


def _flips(margin: Floats, deviation: Floats) -> Floats:
    """Return the probability that a normal error changes a margin's sign."""
    with np.errstate(divide="ignore", invalid="ignore"):
        chance: Floats = ndtr(-np.abs(margin) / deviation)
    return np.nan_to_num(chance, nan=0.5)
