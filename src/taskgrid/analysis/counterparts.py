"""What of a run answers the same question as a published number.

A number is set beside another only when both answer the same question: same weights, same way of
fine-tuning, same tasks, same rule for lambda, same split.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from taskgrid.analysis.literature import task_sets
from taskgrid.lattice.subsets import subset_name
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.intervals import Pair, mean_intervals, wilson

AVERAGE = "average"
"""The task of numbers that are averages over tasks."""

_CHOSEN_RULES = ("val", "unstated")
_PAIRS = "pairs"


@dataclass(frozen=True)
class Names:
    """What the publications call that which a run calls otherwise.

    Attributes:
        models: the run's model -> the published one; models without numbers are left out.
        tasks: the run's task -> the data set.
        modes: the run's mode -> how the experts were trained; a mode that is not named stands for
            itself.
    """

    models: Mapping[str, str]
    tasks: Mapping[str, str]
    modes: Mapping[str, str]


class _Merge(NamedTuple):
    model: str
    mode: str | None
    seed: int | None
    method: str
    options: str
    subset: str


_Run = tuple[str, str | None, int | None]
"""Model, mode and seed of a set of experts."""

Row = Mapping[Hashable, Any]
"""A row of a table, by the names of its columns."""


class _Cell(NamedTuple):
    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.n


class Score(NamedTuple):
    """A number of the run with its interval: of one task and its ``n`` images, or an average."""

    merge: _Merge
    point: str
    task: str
    value: float
    low: float
    high: float
    n: int | None


class Counterparts:
    """The run's rows, found by what they are rows of.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        names: which of the run's names stand for which published ones.
    """

    def __init__(self, grid: pd.DataFrame, selected: pd.DataFrame, names: Names) -> None:
        self._names = names
        self._ours = {theirs: ours for ours, theirs in names.tasks.items()}
        self._sets = {
            name: tuple(self._ours[task] for task in tasks)
            for name, tasks in task_sets().items()
            if all(task in self._ours for task in tasks)
        }
        subsets = {subset_name(tasks) for tasks in self._sets.values()}
        kept = grid[grid["subset"].isin(subsets) | grid["method"].isin(("zeroshot", "expert"))]
        kept = kept[kept["model"].isin(names.models)]
        self._cells: dict[tuple[_Merge, str, str, str], _Cell] = {}
        self._swept: dict[_Merge, set[str]] = {}
        columns = [*_Merge._fields, "point", "task", "split", "correct", "n"]
        for *at, point, task, split, correct, n in kept[columns].itertuples(index=False):
            merge = _merge(at)
            self._cells[merge, point, task, split] = _Cell(int(correct), int(n))
            if split == "val":
                self._swept.setdefault(merge, set()).add(point)
        self._runs = sorted(
            {(p.model, p.mode, p.seed) for p, *_ in self._cells if p.method == "expert"},
            key=str,
        )
        addition = selected[selected["study"] == "addition"]
        self._pairs = addition[addition["size"] == 2]
        addition = addition[addition["subset"].isin(subsets)]
        self._chosen: dict[_Merge, Row] = {}
        for line in addition.to_dict("records"):
            merge = _merge([line[name] for name in _Merge._fields])
            self._chosen.setdefault(merge, line)

    def of(self, model: str, number: Row) -> Iterator[Score]:
        """Return the run's numbers that answer the same question as a published one."""
        tasks = self._tasks(number)
        if not tasks:
            return
        if number["method"] == "zeroshot":
            yield from self._zeroshot(model, number, tasks)
        for run in self._runs:
            if run[0] != model or self._names.modes.get(str(run[1]), run[1]) != number["mode"]:
                continue
            if number["method"] == "expert":
                yield from self._experts(run, number, tasks)
            elif number["tasks"] == _PAIRS:
                yield from self._mean_of_pairs(run, number, tasks)
            elif number["tasks"] in self._sets:
                yield from self._merges(run, number, tasks)

    def _tasks(self, number: Row) -> tuple[str, ...]:
        if number["task"] == AVERAGE:
            return self._sets.get("8" if number["tasks"] == _PAIRS else number["tasks"], ())
        return (self._ours[number["task"]],) if number["task"] in self._ours else ()

    def _zeroshot(self, model: str, number: Row, tasks: Sequence[str]) -> Iterator[Score]:
        base = _Merge(model, None, None, "zeroshot", "{}", "")
        cells = [self._cells.get((base, "0.00", task, number["split"])) for task in tasks]
        yield from _accuracy(base._replace(subset=subset_name(tasks)), "", number, tasks, cells)

    def _experts(self, run: _Run, number: Row, tasks: Sequence[str]) -> Iterator[Score]:
        merge = _Merge(*run, method="expert", options="{}", subset=subset_name(tasks))
        yield from _accuracy(merge, "", number, tasks, self._own(run, number, tasks))

    def _own(self, run: _Run, number: Row, tasks: Sequence[str]) -> list[_Cell | None]:
        merge = _Merge(*run, method="expert", options="{}", subset="")
        return [
            self._cells.get((merge._replace(subset=task), "1.00", task, number["split"]))
            for task in tasks
        ]

    def _merges(self, run: _Run, number: Row, tasks: Sequence[str]) -> Iterator[Score]:
        subset = subset_name(self._sets[number["tasks"]])
        for merge, chosen in self._chosen.items():
            mine = (*merge[:3], merge.method, merge.subset) == (*run, number["method"], subset)
            if not mine or not _states(number["options"], merge.options):
                continue
            point = self._point_of(number["lambda"], merge, chosen)
            if point is None:
                continue
            if number["task"] == AVERAGE and point == chosen["point"]:
                yield _chosen_average(merge, chosen, number["metric"])
                continue
            cells = [self._cells.get((merge, point, task, number["split"])) for task in tasks]
            if number["metric"] == "accuracy":
                yield from _accuracy(merge, point, number, tasks, cells)
            else:
                yield from _normalized(merge, point, cells, self._own(run, number, tasks))

    def _point_of(self, rule: str, merge: _Merge, chosen: Row) -> str | None:
        """Return the lambda of the run that a published rule stands for; None: there is none."""
        if rule in _CHOSEN_RULES:
            return str(chosen["point"]) if len(self._swept.get(merge, ())) > 1 else None
        return None if rule == "test" else rule or "1.00"

    def _mean_of_pairs(self, run: _Run, number: Row, tasks: Sequence[str]) -> Iterator[Score]:
        names = {subset_name(pair) for pair in itertools.combinations(tasks, 2)}
        rows = self._pairs[self._pairs["subset"].isin(names)]
        rows = rows[rows["method"] == number["method"]]
        for at, part in rows.groupby([*_Merge._fields[:5]], sort=True):
            merge = _merge([*at, subset_name(tasks)])
            if merge[:3] == run and len(part) == len(names):
                score = float(part[f"test_{number['metric']}"].mean(skipna=False))
                yield Score(merge, "", AVERAGE, score, math.nan, math.nan, None)


def _merge(values: Sequence[Any]) -> _Merge:
    model, mode, seed, *merge = values
    if pd.isna(seed):
        return _Merge(model, None, None, *merge)
    return _Merge(model, mode, int(seed), *merge)


def _states(published: str, options: str) -> bool:
    """Return whether a method's options are those that a publication states."""
    own = json.loads(options or "{}")
    return all(own.get(key) == value for key, value in json.loads(published or "{}").items())


def _accuracy(
    merge: _Merge,
    point: str,
    number: Row,
    tasks: Sequence[str],
    cells: Sequence[_Cell | None],
) -> Iterator[Score]:
    known = [cell for cell in cells if cell is not None]
    if len(known) < len(tasks):
        return
    if number["task"] != AVERAGE:
        (task,), (cell,) = tasks, known
        low, high = wilson(cell.correct, cell.n)
        yield Score(merge, point, task, cell.accuracy, float(low), float(high), cell.n)
        return
    pairs = [
        Pair(
            cell.correct,
            0,
            0,
            cell.n - cell.correct,
            derive_seed("published", *map(str, merge), task),
        )
        for task, cell in zip(tasks, known, strict=True)
    ]
    interval, _ = mean_intervals(pairs)
    mean = math.fsum(cell.accuracy for cell in known) / len(known)
    yield Score(merge, point, AVERAGE, mean, interval.low, interval.high, None)


def _normalized(
    merge: _Merge, point: str, cells: Sequence[_Cell | None], own: Sequence[_Cell | None]
) -> Iterator[Score]:
    ratios = [
        cell.correct / expert.correct
        for cell, expert in zip(cells, own, strict=True)
        if cell is not None and expert is not None and expert.correct
    ]
    if len(ratios) == len(cells):
        mean = math.fsum(ratios) / len(ratios)
        yield Score(merge, point, AVERAGE, mean, math.nan, math.nan, None)


def _chosen_average(merge: _Merge, chosen: Row, metric: str) -> Score:
    value, low, high = (float(chosen[f"test_{metric}{end}"]) for end in ("", "_low", "_high"))
    return Score(merge, str(chosen["point"]), AVERAGE, value, low, high, None)
