"""The table of chosen points: what studies chose, with its scores and their intervals.

Nothing is chosen here. The choices were made, and stored, when their blocks were evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from taskgrid.errors import ArtifactError, DataError
from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.lattice.points import point_scale
from taskgrid.lattice.subsets import parse_subset
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.columns import schema_of
from taskgrid.store.intervals import Interval, Pair, mean_intervals
from taskgrid.store.outcome import Outcome

SELECTED = schema_of(
    (
        "model",
        "mode",
        "seed",
        "method",
        "options",
        "subset",
        "size",
        "study",
        "rule",
        "about",
        "point",
        "scale",
        "val_accuracy",
        "val_normalized",
        "test_accuracy",
        "test_normalized",
        "test_accuracy_low",
        "test_accuracy_high",
        "test_normalized_low",
        "test_normalized_high",
        "level",
        "tasks",
        "at_edge",
        "met",
    )
)
"""Columns of the table of chosen points.

``val_*`` and ``test_*`` are means over ``tasks`` (joined by ``+``), normalised ones over those of them
that have a normalised accuracy. The intervals, of coverage ``level``, are those of the test numbers for
the given experts and the given choice: test chose nothing, so there is no winner's curse in them.
"""

Find = Callable[[Iterable[str]], Mapping[str, Outcome]]
"""Finds outcomes by row key, e.g. ``OutcomeStore.find``."""


def select(
    grid: pa.Table,
    choices: Iterable[Chosen],
    find: Find,
    *,
    level: float = 0.95,
    draws: int = 2000,
) -> pa.Table:
    """Return the chosen points with their scores.

    Args:
        grid: rows of the grid, columns ``rows.GRID``, with those of the experts.
        choices: what was chosen; a choice that is there twice counts once.
        find: where the per-sample outcomes of the test rows are.
        level: coverage of the intervals.
        draws: bootstrap samples.

    Returns:
        A table with columns ``SELECTED``, in the order of the grid, the choices of one merge in theirs.

    Raises:
        DataError: if a chosen point's row is missing, or that of an expert of a merged task.
        ArtifactError: if an outcome behind a test row is not stored any more.
    """
    ordered = sorted(dict.fromkeys(choices), key=_place)
    ledger = _Ledger(grid, ordered)
    picks = [_pick(ledger, chosen) for chosen in ordered]
    outcomes = find({key for pick in picks for key in pick.keys})
    rows = [_scored(pick, outcomes, level, draws) for pick in picks]
    columns = {name: [row[name] for row in rows] for name in SELECTED.names}
    return pa.table(columns, schema=SELECTED)


def _place(chosen: Chosen) -> tuple[str | int, ...]:
    merge = (chosen.model, chosen.mode, chosen.seed, chosen.method, chosen.options)
    return (*merge, len(parse_subset(chosen.subset)), chosen.subset)


class _Merge(NamedTuple):
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
    """The rows of chosen points and of experts, found by what they are rows of."""

    def __init__(self, grid: pa.Table, choices: Sequence[Chosen]) -> None:
        wanted = {(_merge(chosen), chosen.point) for chosen in choices}
        self._cells: dict[tuple[_Merge, str, str, str], _Cell] = {}
        names = [*_Merge._fields, "point", "task", "split", "correct", "n", "key"]
        columns = [grid[name].to_pylist() for name in names]
        for *merge, point, task, split, correct, n, key in zip(*columns, strict=True):
            at = _Merge(*merge)
            if at.method == "expert" or (at, point) in wanted:
                self._cells[at, point, task, split] = _Cell(correct, n, key)

    def cell(self, merge: _Merge, point: str, task: str, split: str) -> _Cell:
        cell = self._cells.get((merge, point, task, split))
        if cell is None:
            raise DataError(
                f"{merge} has no {split} row on task {task!r} at {point}; "
                "run the eval rule of its block again"
            )
        return cell

    def expert(self, merge: _Merge, task: str, split: str) -> _Cell | None:
        """Return the row of a task's own expert; None where the task has none: it is a control."""
        own = merge._replace(method="expert", options="{}", subset=task)
        cell = self._cells.get((own, "1.00", task, split))
        if cell is None and task in parse_subset(merge.subset):
            raise DataError(
                f"{merge} cannot be normalised: there is no {split} row of the expert of task {task!r}; "
                "run the reference rule of its model, mode and seed"
            )
        return cell


def _merge(chosen: Chosen) -> _Merge:
    return _Merge(*(getattr(chosen, name) for name in _Merge._fields))


class _Both(NamedTuple):
    """A chosen point on one task, and the task's own expert."""

    own: _Cell
    expert: _Cell | None

    @property
    def ratio(self) -> float | None:
        if self.expert is None or not self.expert.correct:
            return None
        return self.own.correct / self.expert.correct


@dataclass(frozen=True)
class _Pick:
    chosen: Chosen
    val: tuple[_Both, ...]
    test: tuple[_Both, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(cell.key for both in self.test for cell in both if cell is not None)


def _pick(ledger: _Ledger, chosen: Chosen) -> _Pick:
    merge = _merge(chosen)
    val, test = (
        tuple(
            _Both(ledger.cell(merge, chosen.point, task, split), ledger.expert(merge, task, split))
            for task in chosen.tasks
        )
        for split in ("val", "test")
    )
    return _Pick(chosen, val, test)


def _scored(
    pick: _Pick, outcomes: Mapping[str, Outcome], level: float, draws: int
) -> dict[str, object]:
    chosen = pick.chosen
    if not set(pick.keys) <= outcomes.keys():
        raise ArtifactError(
            f"the outcomes behind {_merge(chosen)} are not in the store any more; delete its rows "
            "under results/eval and run again"
        )
    accuracy, normalized = _intervals(pick.test, outcomes, level, draws)
    return {
        **_merge(chosen)._asdict(),
        "size": len(parse_subset(chosen.subset)),
        "study": chosen.study,
        "rule": chosen.rule,
        "about": chosen.about,
        "point": chosen.point,
        "scale": point_scale(chosen.point),
        "val_accuracy": _mean([both.own.accuracy for both in pick.val]),
        "val_normalized": _mean_ratio(pick.val),
        "test_accuracy": _mean([both.own.accuracy for both in pick.test]),
        "test_normalized": _mean_ratio(pick.test),
        "test_accuracy_low": accuracy.low,
        "test_accuracy_high": accuracy.high,
        "test_normalized_low": _known(normalized.low),
        "test_normalized_high": _known(normalized.high),
        "level": level,
        "tasks": "+".join(chosen.tasks),
        "at_edge": chosen.at_edge,
        "met": chosen.met,
    }


def _intervals(
    cells: Sequence[_Both], outcomes: Mapping[str, Outcome], level: float, draws: int
) -> tuple[Interval, Interval]:
    """Return the intervals of mean accuracy, over all tasks, and of the mean of what is normalised."""
    pairs = [_pair(both, outcomes) for both in cells]
    judged = [pair for both, pair in zip(cells, pairs, strict=True) if both.ratio is not None]
    accuracy, normalized = mean_intervals(pairs, level=level, draws=draws)
    if not judged:
        return accuracy, Interval(math.nan, math.nan)
    if len(judged) < len(pairs):
        _, normalized = mean_intervals(judged, level=level, draws=draws)
    return accuracy, normalized


def _pair(both: _Both, outcomes: Mapping[str, Outcome]) -> Pair:
    # Without an expert the merge stands in for it: the ratio that comes of it is not looked at.
    beside = both.expert or both.own
    first, second = outcomes[both.own.key].hits(), outcomes[beside.key].hits()
    return Pair.of(first, second, derive_seed("bootstrap", both.own.key, beside.key))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_ratio(cells: Sequence[_Both]) -> float | None:
    ratios = [both.ratio for both in cells]
    known = [ratio for ratio in ratios if ratio is not None]
    return _mean(known) if known else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
