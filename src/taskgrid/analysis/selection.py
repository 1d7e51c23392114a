"""Choosing on validation: exact on counts, so that a tie is a tie and the first maximum wins.

Means of ratios are compared as fractions. In floating point, two lambdas that are equally good can
differ in the last bit, and which of them wins would depend on the order of a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from taskgrid.errors import ArtifactError, DataError
from taskgrid.lattice.points import lambda_value
from taskgrid.lattice.subsets import parse_subset
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.intervals import Pair, mean_intervals
from taskgrid.store.outcome import Outcome
from taskgrid.studies.seam import Choice, Curves, Study


def best_normalized(curves: Curves, allowed: Sequence[int]) -> int:
    """Return the first index of the largest mean of accuracy relative to the expert's.

    A task whose expert gets nothing right has no normalised accuracy and is left out of the mean;
    when that is so for every task, accuracy itself is compared.

    Args:
        curves: validation results.
        allowed: the indices of coefficients to choose among, increasing.

    Raises:
        DataError: if there is nothing to choose from.
    """
    defined = [at for at, correct in enumerate(curves.expert) if correct]
    over = curves.expert if defined else curves.n
    tasks = defined or range(len(curves.tasks))
    scores = [
        sum((Fraction(int(curves.correct[row, at]), int(over[at])) for at in tasks), Fraction())
        for row in allowed
    ]
    return allowed[first_maximum(scores)]


def first_maximum(scores: Sequence[Fraction]) -> int:
    """Return the index of the largest score; of equal ones, the first.

    Raises:
        DataError: if there are no scores.
    """
    if not scores:
        raise DataError("there are no validation rows to choose lambda from")
    return max(range(len(scores)), key=lambda index: (scores[index], -index))


def edges(allowed: Sequence[int]) -> tuple[int, ...]:
    """Return the first and the last of several indices; a single one is no edge."""
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else ()


SELECTED = pa.schema(
    [
        ("model", pa.string()),
        ("mode", pa.string()),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("options", pa.string()),
        ("subset", pa.string()),
        ("size", pa.int64()),
        ("study", pa.string()),
        ("rule", pa.string()),
        ("lambda", pa.string()),
        ("val_accuracy", pa.float64()),
        ("val_normalized", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("test_normalized", pa.float64()),
        ("test_accuracy_low", pa.float64()),
        ("test_accuracy_high", pa.float64()),
        ("test_normalized_low", pa.float64()),
        ("test_normalized_high", pa.float64()),
        ("level", pa.float64()),
        ("tasks", pa.string()),
        ("at_edge", pa.bool_()),
    ]
)
"""Columns of the table of chosen points.

``val_*`` and ``test_*`` are means over ``tasks`` (joined by ``+``). The intervals, of coverage
``level``, are those of the test numbers for the given experts and the given choice: test chose
nothing, so there is no winner's curse in them.
"""

Find = Callable[[Iterable[str]], Mapping[str, Outcome]]
"""Finds outcomes by row key, e.g. ``OutcomeStore.find``."""


def select(
    grid: pa.Table,
    studies: Sequence[Study],
    find: Find,
    *,
    level: float = 0.95,
    draws: int = 2000,
) -> pa.Table:
    """Return the chosen point of every merge for every study, with its scores.

    Args:
        grid: rows of the grid, columns ``rows.GRID``, with those of the experts and the base.
        studies: the studies.
        find: where the per-sample outcomes of the test rows are.
        level: coverage of the intervals.
        draws: bootstrap samples.

    Returns:
        A table with columns ``SELECTED``, in the order of the grid.

    Raises:
        DataError: if an expert's row, a validation row or the chosen point's test row is missing.
        ArtifactError: if an outcome behind a test row is not stored any more.
    """
    ledger = _Ledger(grid)
    picks = [
        _pick(ledger, point, study)
        for point in ledger.points
        for study in studies
        if study.covers(parse_subset(point.subset))
    ]
    outcomes = find({key for pick in picks for row in pick.pairs for key in row})
    rows = [_scored(pick, outcomes, level, draws) for pick in picks]
    columns = {name: [row[name] for row in rows] for name in SELECTED.names}
    return pa.table(columns, schema=SELECTED)


class _Point(NamedTuple):
    model: str
    mode: str
    seed: int
    method: str
    options: str
    subset: str

    def __str__(self) -> str:
        return f"{self.method} {self.subset} ({self.model}, {self.mode}, seed {self.seed})"


class _Cell(NamedTuple):
    correct: int
    n: int
    key: str

    @property
    def accuracy(self) -> float:
        return self.correct / self.n


class _Ledger:
    """The grid's rows, found by what they are rows of."""

    def __init__(self, grid: pa.Table) -> None:
        self._cells: dict[tuple[_Point, str, str, str], _Cell] = {}
        self._lambdas: dict[_Point, dict[str, None]] = {}
        names = [*_Point._fields, "lambda", "task", "split", "correct", "n", "key"]
        columns = [grid[name].to_pylist() for name in names]
        for *point, scale, task, split, correct, n, key in zip(*columns, strict=True):
            at = _Point(*point)
            self._cells[at, scale, task, split] = _Cell(correct, n, key)
            if split == "val" and at.method not in ("zeroshot", "expert"):
                self._lambdas.setdefault(at, {})[scale] = None

    @property
    def points(self) -> tuple[_Point, ...]:
        return tuple(self._lambdas)

    def lambdas(self, point: _Point) -> tuple[str, ...]:
        return tuple(sorted(self._lambdas[point], key=lambda_value))

    def cell(self, point: _Point, scale: str, task: str, split: str) -> _Cell:
        cell = self._cells.get((point, scale, task, split))
        if cell is None:
            raise DataError(
                f"{point} has no {split} row on task {task!r} at lambda {scale}; "
                "run the evaluate rule of its block again"
            )
        return cell

    def expert(self, point: _Point, task: str, split: str) -> _Cell:
        own = point._replace(method="expert", options="{}", subset=task)
        cell = self._cells.get((own, "1.00", task, split))
        if cell is None:
            raise DataError(
                f"{point} cannot be normalised: there is no {split} row of the expert of task {task!r}; "
                "run the reference rule of its model, mode and seed"
            )
        return cell

    def zeroshot(self, point: _Point, task: str, split: str) -> _Cell:
        base = _Point(point.model, None, None, "zeroshot", "{}", "")  # type: ignore[arg-type]
        cell = self._cells.get((base, "0.00", task, split))
        if cell is None:
            raise DataError(
                f"there is no zero-shot {split} row of model {point.model!r} on task {task!r}; "
                "run its reference rule"
            )
        return cell


@dataclass(frozen=True)
class _Pick:
    point: _Point
    study: Study
    choice: Choice
    tasks: tuple[str, ...]
    val: tuple[_Cell, ...]
    val_expert: tuple[_Cell, ...]
    test: tuple[_Cell, ...]
    test_expert: tuple[_Cell, ...]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        cells = zip(self.test, self.test_expert, strict=True)
        return tuple((own.key, expert.key) for own, expert in cells)


def _pick(ledger: _Ledger, point: _Point, study: Study) -> _Pick:
    subset = parse_subset(point.subset)
    tasks = study.tasks(subset)
    sweep = study.sweep(ledger.lambdas(point))
    swept = [[ledger.cell(point, scale, task, "val") for task in tasks] for scale in sweep]
    val_expert = tuple(ledger.expert(point, task, "val") for task in tasks)
    curves = Curves(
        subset=subset,
        lambdas=sweep,
        tasks=tasks,
        n=np.array([cell.n for cell in val_expert], dtype=np.int64),
        correct=np.array([[cell.correct for cell in row] for row in swept], dtype=np.int64),
        expert=np.array([cell.correct for cell in val_expert], dtype=np.int64),
        zeroshot=np.array(
            [ledger.zeroshot(point, task, "val").correct for task in tasks], dtype=np.int64
        ),
    )
    choice = study.choose(curves)
    return _Pick(
        point=point,
        study=study,
        choice=choice,
        tasks=tasks,
        val=tuple(swept[sweep.index(choice.scale)]),
        val_expert=val_expert,
        test=tuple(ledger.cell(point, choice.scale, task, "test") for task in tasks),
        test_expert=tuple(ledger.expert(point, task, "test") for task in tasks),
    )


def _scored(
    pick: _Pick, outcomes: Mapping[str, Outcome], level: float, draws: int
) -> dict[str, object]:
    pairs = []
    for own, expert in pick.pairs:
        for key in (own, expert):
            if key not in outcomes:
                raise ArtifactError(
                    f"the outcomes behind {pick.point} are not in the store any more; delete its rows "
                    "under results/eval and run again"
                )
        first, second = outcomes[own].hits(), outcomes[expert].hits()
        pairs.append(Pair.of(first, second, derive_seed("bootstrap", own, expert)))
    accuracy, normalized = mean_intervals(pairs, level=level, draws=draws)
    return {
        **pick.point._asdict(),
        "size": len(parse_subset(pick.point.subset)),
        "study": pick.study.name,
        "rule": pick.study.rule,
        "lambda": pick.choice.scale,
        "val_accuracy": _mean([cell.accuracy for cell in pick.val]),
        "val_normalized": _mean_ratio(pick.val, pick.val_expert),
        "test_accuracy": _mean([cell.accuracy for cell in pick.test]),
        "test_normalized": _mean_ratio(pick.test, pick.test_expert),
        "test_accuracy_low": accuracy.low,
        "test_accuracy_high": accuracy.high,
        "test_normalized_low": _known(normalized.low),
        "test_normalized_high": _known(normalized.high),
        "level": level,
        "tasks": "+".join(pick.tasks),
        "at_edge": pick.choice.at_edge,
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_ratio(cells: Sequence[_Cell], experts: Sequence[_Cell]) -> float | None:
    if not all(expert.correct for expert in experts):
        return None
    pairs = zip(cells, experts, strict=True)
    return _mean([cell.correct / expert.correct for cell, expert in pairs])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
