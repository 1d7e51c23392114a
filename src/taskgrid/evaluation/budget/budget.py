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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from taskgrid.errors import ConfigError
from taskgrid.evaluation.budget.anova import Surrogate, core_numbers
from taskgrid.evaluation.budget.book import Book, Guess, ImageSet, LatticeRow
from taskgrid.evaluation.budget.findings import Findings, Report, errors_of
from taskgrid.lattice.budgets import BudgetSpec, least_audit, least_budget
from taskgrid.lattice.subsets import subset_of_number

_DECAYS = (0.01, 2.0)


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
    books = [Book(tuple(order), found, outside) for found in image_sets]
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
        _most([abs(error) for _, error in errors_of(number, books, thought)] for number in further),
        _most(
            [book.surprises[number] for book in books if book.measures(number)]
            for number in core[1:]
        ),
        _most([guess[number].unit for guess in guesses if number in guess] for number in predicted),
    )
    findings = Findings.of(books, guesses, predicted, audited, suspected, spec)
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


def _evaluate(books: Sequence[Book], numbers: Sequence[int]) -> None:
    for number in numbers:
        for book in books:
            book.evaluate(number)


def _decay(books: Sequence[Book]) -> float:
    """Return the mean square of pair effects over that of the tasks' own."""
    single, pair = (math.fsum(book.squares[order] for book in books) for order in (1, 2))
    lowest, highest = _DECAYS
    return float(np.clip(pair / single, lowest, highest)) if single > 0 else lowest


def _further(
    numbers: Sequence[int], books: Sequence[Book], decay: float, tasks: int, count: int
) -> tuple[tuple[int, ...], list[dict[int, Guess]]]:
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


def _most(errors: Iterable[Sequence[float]]) -> float:
    """Return the largest mean over a merge's rows."""
    return max((float(np.mean(rows)) for rows in errors if rows), default=0.0)


def _draw(numbers: Sequence[int], spec: BudgetSpec) -> tuple[int, ...]:
    """Draw the audit; a larger one holds a smaller one of the same seed."""

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"taskgrid/audit/{spec.seed}/{number}".encode()).digest()

    return tuple(sorted(numbers, key=rank)[: spec.audit])
