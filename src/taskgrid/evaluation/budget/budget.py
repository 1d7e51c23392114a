"""A lattice on a budget: evaluate some merges, predict the others, audit, and say how wrong it is.

1. The core: the base, every task, every pair, on every image set.
2. Further merges, where the estimated error of the predictions is largest.
3. The audit: a random sample of what is left. Predictions are fixed before it and do not change
   after it, so that its errors speak for the rest. Audited merges count as evaluated.

The estimated error of a prediction is the share of images whose label would change under the
surrogate's own uncertainty, scaled by the size of the image's pair effects. It decides where the
budget goes, and how a bound varies over the lattice; that bounds are large enough is the audit's
part.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from taskgrid.errors import ConfigError
from taskgrid.evaluation.budget.anova import Surrogate, core_numbers
from taskgrid.evaluation.budget.audit import (
    Estimate,
    conformal_limit,
    most_beyond,
    rest_limit,
    rest_mean,
)
from taskgrid.evaluation.curves.curves import (
    CALIBRATION_BINS,
    calibration_gaps,
    exact_row,
    odds_against,
    score_odds,
)
from taskgrid.lattice.budgets import BudgetSpec, least_audit, least_budget
from taskgrid.lattice.subsets import subset_of_number

Floats = NDArray[np.float64]

_CHUNK = 1 << 22
"""Evaluated logits that are expanded to float64 at a time."""

_BLOCK = 16
"""Merges that are predicted at a time: one matrix product instead of as many passes over memory."""

_DECAYS = (0.01, 2.0)


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
class Report:
    """What is known about the predictions.

    Attributes:
        core: merges of at most two tasks that were evaluated, the base among them.
        further: merges that were evaluated where the estimated error was largest.
        audited: merges that were drawn at random and evaluated.
        rest: merges that are only predicted.
        decay: how fast effects fall with their order, as seen in pairs against single tasks.
        level: coverage of everything below.
        error: mean over the rest of the absolute error of accuracy (mean over a merge's tasks). Its ends
            trust that the audit saw the rest's kinds of errors; where fewer than two audited merges differ
            from the others they are as far out as ``error_limit`` needs.
        bias: the same with the sign, predicted minus true.
        largest: the largest error of a merge that was seen or expected anywhere: by the audit, by further
            merges before they were evaluated, by pairs from their single tasks, by the estimated errors.
        error_limit: with confidence ``level`` the mean error of the rest is at most this, if no merge of
            the rest is off by more than ``largest``.
        error_ceiling: the same whatever the errors are.
        beyond: at most so many merges of the rest have a row beyond its bound.
        expected_beyond: how many of them one expects, at most.
    """

    core: int
    further: int
    audited: int
    rest: int
    decay: float
    level: float
    error: Estimate
    bias: Estimate
    largest: float
    error_limit: float
    error_ceiling: float
    beyond: int
    expected_beyond: float

    def sentence(self) -> str:
        """Say it in words."""
        evaluated = self.core + self.further + self.audited
        if not self.rest:
            return f"evaluated all {evaluated} merges"
        return (
            f"evaluated {evaluated} merges ({self.core} of at most two tasks, {self.further} where the "
            f"error was thought largest, {self.audited} at random) and predicted {self.rest}: mean "
            f"error of accuracy {100 * self.error.mean:.2f} points, {100 * self.error.low:.2f} to "
            f"{100 * self.error.high:.2f} at level {self.level:g} if the audit saw the kinds of errors "
            f"there are; with confidence {self.level:g} at most {100 * self.error_limit:.2f} if no merge is "
            f"off by more than {100 * self.largest:.2f}, the largest error seen or expected, and at most "
            f"{100 * self.error_ceiling:.2f} whatever the errors are; a predicted merge keeps the "
            f"bounds of its rows with probability {self.level:g}, and with confidence {self.level:g} at "
            f"most {self.beyond} do not"
        )


@dataclass(frozen=True)
class Prediction:
    """A whole lattice.

    Attributes:
        rows: one per merge and image set that was asked for, by increasing subset number.
        report: what is known about those that are predicted.
        evaluated: the merges that were evaluated, in that order.
    """

    rows: tuple[LatticeRow, ...]
    report: Report
    evaluated: tuple[tuple[str, ...], ...]


def predict_lattice(
    order: Sequence[str],
    image_sets: Sequence[ImageSet],
    targets: Sequence[int],
    spec: BudgetSpec,
    *,
    outside: bool = False,
) -> Prediction:
    """Evaluate as many merges as the budget allows and predict the others.

    Args:
        order: the tasks; task ``i`` is bit ``i`` of a subset's number.
        image_sets: the image sets.
        targets: numbers of the subsets that are asked for.
        spec: the budget.
        outside: measure merges also on the tasks outside their subset.

    Raises:
        ConfigError: if the budget does not cover the core and the audit, or the audit is too small
            for the level.
    """
    core = core_numbers(len(order))
    books = [_Book(tuple(order), found, outside) for found in image_sets]
    asked = sorted({number for number in targets if number})
    larger = [
        number
        for number in asked
        if number.bit_count() > 2 and any(book.measures(number) for book in books)
    ]
    _check(spec, len(core), len(larger), len(order))
    _evaluate(books, core)
    decay = _decay(books)
    count = spec.budget - len(core) - spec.audit
    further, thought = _further(larger, books, decay, len(order), count)
    _evaluate(books, further)
    taken = set(further)
    predicted = [number for number in larger if number not in taken]
    guesses = [book.guess(predicted, decay) for book in books]
    audited = _draw(predicted, spec)
    _evaluate(books, audited)
    suspected = max(
        _most([abs(error) for _, error in _errors(number, books, thought)] for number in further),
        _most(
            [book.surprises[number] for book in books if book.measures(number)]
            for number in core[1:]
        ),
        _most([guess[number].unit for guess in guesses if number in guess] for number in predicted),
    )
    findings = _Findings.of(books, guesses, predicted, audited, suspected, spec)
    evaluated = (*core, *further, *audited)
    known = set(evaluated)
    rows = [
        book.exact(number) if number in known else findings.bounded(guess[number])
        for number in asked
        for book, guess in zip(books, guesses, strict=True)
        if book.measures(number)
    ]
    return Prediction(
        tuple(rows),
        findings.report(len(core), len(further), decay),
        tuple(subset_of_number(number, order) for number in evaluated),
    )


def _check(spec: BudgetSpec, core: int, larger: int, tasks: int) -> None:
    if spec.audit < (needed := least_audit(spec.level)):
        raise ConfigError(
            f"an audit of {spec.audit} merges says nothing at level {spec.level:g}; "
            f"audit at least {needed}, or lower the level"
        )
    if spec.budget < (needed := least_budget(tasks, larger, spec.audit)):
        raise ConfigError(
            f"a budget of {spec.budget} merges is too small for {tasks} tasks: the base, the tasks and "
            f"their pairs are {core}, and the audit takes {needed - core}; give at least {needed}"
        )


def _evaluate(books: Sequence[_Book], numbers: Sequence[int]) -> None:
    for number in numbers:
        for book in books:
            book.evaluate(number)


def _decay(books: Sequence[_Book]) -> float:
    """Return the mean square of pair effects over that of the tasks' own."""
    single, pair = (math.fsum(book.squares[order] for book in books) for order in (1, 2))
    lowest, highest = _DECAYS
    return float(np.clip(pair / single, lowest, highest)) if single > 0 else lowest


def _further(
    numbers: Sequence[int], books: Sequence[_Book], decay: float, tasks: int, count: int
) -> tuple[tuple[int, ...], list[dict[int, _Guess]]]:
    """Choose what to evaluate beyond the core: where errors are thought to be largest.

    Returns:
        The choice, and what was predicted of it, by book; nothing where no choice was needed.
    """
    if not numbers or count <= 0:
        return (), []
    if count >= len(numbers):
        return tuple(numbers), []
    plan = Surrogate(tasks, (), decay)
    thought = [book.guess(numbers, decay) for book in books]
    errors = np.zeros(len(numbers))
    for found in thought:
        errors += [found[number].expected if number in found else 0.0 for number in numbers]
    # Where nothing is thought to be wrong, the more uncertain logits decide.
    importance = np.maximum(errors / np.sqrt(plan.variance(numbers)), 1e-9)
    chosen = plan.most_uncertain(numbers, count, importance)
    return chosen, [
        {number: found[number] for number in chosen if number in found} for found in thought
    ]


def _errors(
    number: int, books: Sequence[_Book], guesses: Sequence[dict[int, _Guess]]
) -> list[tuple[_Guess, float]]:
    """Return the predicted rows of an evaluated merge, each with its error, predicted minus true."""
    return [
        (guess[number], guess[number].row.accuracy - book.exact(number).accuracy)
        for book, guess in zip(books, guesses, strict=False)
        if number in guess
    ]


def _most(errors: Iterable[Sequence[float]]) -> float:
    """Return the largest mean over a merge's rows."""
    return max((float(np.mean(rows)) for rows in errors if rows), default=0.0)


def _draw(numbers: Sequence[int], spec: BudgetSpec) -> tuple[int, ...]:
    """Draw the audit; a larger one holds a smaller one of the same seed."""

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"taskgrid/audit/{spec.seed}/{number}".encode()).digest()

    return tuple(sorted(numbers, key=rank)[: spec.audit])


@dataclass(frozen=True)
class _Guess:
    """A predicted row, and its estimated error."""

    row: LatticeRow
    expected: float

    @property
    def unit(self) -> float:
        """What errors are measured in: the estimated one, and one image."""
        return self.expected + 1 / self.row.n


class _Book:
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
        row = exact_row("", self._odds([number], slice(None))[0], self._images.labels)
        return self._row(number, np.packbits(row.hits), row.nll, row.ece, exact=True)

    def guess(self, numbers: Sequence[int], decay: float) -> dict[int, _Guess]:
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
            number: _Guess(
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


@dataclass(frozen=True)
class _Findings:
    """What the audit found."""

    spec: BudgetSpec
    predicted: int
    limit: float
    errors: tuple[float, ...]
    biases: tuple[float, ...]
    largest: float

    @classmethod
    def of(
        cls,
        books: Sequence[_Book],
        guesses: Sequence[dict[int, _Guess]],
        predicted: Sequence[int],
        audited: Sequence[int],
        suspected: float,
        spec: BudgetSpec,
    ) -> _Findings:
        scores, errors, biases = [], [], []
        for number in audited:
            found = _errors(number, books, guesses)
            # All rows of a merge at once: a bound is kept by a merge, or it is not.
            scores.append(max(abs(error) / guess.unit for guess, error in found))
            errors.append(float(np.mean([abs(error) for _, error in found])))
            biases.append(float(np.mean([error for _, error in found])))
        rest = len(predicted) - len(audited)
        limit = conformal_limit(scores, spec.level) if rest else 0.0
        largest = max(suspected, *errors) if rest else 0.0
        return cls(spec, len(predicted), limit, tuple(errors), tuple(biases), largest)

    def bounded(self, guess: _Guess) -> LatticeRow:
        """Return a predicted row with its bound, a multiple of one image."""
        images = guess.row.n
        bound = min(1.0, math.floor(self.limit * guess.unit * images + 1e-9) / images)
        return replace(guess.row, bound=bound)

    def report(self, core: int, further: int, decay: float) -> Report:
        """Return what is known about the rest."""
        audited, level, largest = len(self.errors), self.spec.level, self.largest
        rest = self.predicted - audited
        kept = math.ceil((audited + 1) * level - 1e-9)
        error = rest_mean(self.errors, self.predicted, level, 0.0, largest)
        bias = rest_mean(self.biases, self.predicted, level, -largest, largest)
        # A mean is no farther from zero than that of absolute values.
        bias = replace(bias, low=max(bias.low, -error.high), high=min(bias.high, error.high))
        return Report(
            core=core,
            further=further,
            audited=audited,
            rest=rest,
            decay=decay,
            level=level,
            error=error,
            bias=bias,
            largest=largest,
            error_limit=rest_limit(self.errors, self.predicted, level, largest),
            error_ceiling=rest_limit(self.errors, self.predicted, level, 1.0),
            beyond=most_beyond(audited - kept, audited, self.predicted, level) if rest else 0,
            expected_beyond=(1 - level) * rest,
        )
