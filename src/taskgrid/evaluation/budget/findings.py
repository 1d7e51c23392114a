"""What an audit found: bounds of predicted rows, and what is known about all that is only predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from taskgrid.evaluation.budget.audit import (
    Estimate,
    conformal_limit,
    most_beyond,
    rest_limit,
    rest_mean,
)
from taskgrid.evaluation.budget.book import Book, Guess, LatticeRow
from taskgrid.lattice.budgets import BudgetSpec


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


def errors_of(
    number: int, books: Sequence[Book], guesses: Sequence[dict[int, Guess]]
) -> list[tuple[Guess, float]]:
    """Return the predicted rows of an evaluated merge, each with its error, predicted minus true."""
    return [
        (guess[number], guess[number].row.accuracy - book.exact(number).accuracy)
        for book, guess in zip(books, guesses, strict=False)
        if number in guess
    ]


@dataclass(frozen=True)
class Findings:
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
        books: Sequence[Book],
        guesses: Sequence[dict[int, Guess]],
        predicted: Sequence[int],
        audited: Sequence[int],
        suspected: float,
        spec: BudgetSpec,
    ) -> Findings:
        """Compare what was predicted of audited merges with what they are.

        Args:
            books: the image sets.
            guesses: what each predicts.
            predicted: numbers of the merges that were predicted.
            audited: those of them that were evaluated then.
            suspected: the largest error that was seen or expected elsewhere.
            spec: the budget.
        """
        scores, errors, biases = [], [], []
        for number in audited:
            found = errors_of(number, books, guesses)
            # All rows of a merge at once: a bound is kept by a merge, or it is not.
            scores.append(max(abs(error) / guess.unit for guess, error in found))
            errors.append(float(np.mean([abs(error) for _, error in found])))
            biases.append(float(np.mean([error for _, error in found])))
        rest = len(predicted) - len(audited)
        limit = conformal_limit(scores, spec.level) if rest else 0.0
        largest = max(suspected, *errors) if rest else 0.0
        return cls(spec, len(predicted), limit, tuple(errors), tuple(biases), largest)

    def bounded(self, guess: Guess) -> LatticeRow:
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
