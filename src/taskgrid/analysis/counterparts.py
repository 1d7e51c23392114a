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


class _Point(NamedTuple):
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

    point: _Point
    scale: str
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
        self._cells: dict[tuple[_Point, str, str, str], _Cell] = {}
        self._swept: dict[_Point, set[str]] = {}
        columns = [*_Point._fields, "lambda", "task", "split", "correct", "n"]
        for *at, scale, task, split, correct, n in kept[columns].itertuples(index=False):
            point = _point(at)
            self._cells[point, scale, task, split] = _Cell(int(correct), int(n))
            if split == "val":
                self._swept.setdefault(point, set()).add(scale)
        self._runs = sorted(
            {(p.model, p.mode, p.seed) for p, *_ in self._cells if p.method == "expert"},
            key=str,
        )
        addition = selected[selected["study"] == "addition"]
        self._pairs = addition[addition["size"] == 2]
        addition = addition[addition["subset"].isin(subsets)]
        self._chosen: dict[_Point, Row] = {}
        for line in addition.to_dict("records"):
            point = _point([line[name] for name in _Point._fields])
            self._chosen.setdefault(point, line)

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
        base = _Point(model, None, None, "zeroshot", "{}", "")
        cells = [self._cells.get((base, "0.00", task, number["split"])) for task in tasks]
        yield from _accuracy(base._replace(subset=subset_name(tasks)), "", number, tasks, cells)

    def _experts(self, run: _Run, number: Row, tasks: Sequence[str]) -> Iterator[Score]:
        point = _Point(*run, method="expert", options="{}", subset=subset_name(tasks))
        yield from _accuracy(point, "", number, tasks, self._own(run, number, tasks))

    def _own(self, run: _Run, number: Row, tasks: Sequence[str]) -> list[_Cell | None]:
        point = _Point(*run, method="expert", options="{}", subset="")
        return [
            self._cells.get((point._replace(subset=task), "1.00", task, number["split"]))
            for task in tasks
        ]

    def _merges(self, run: _Run, number: Row, tasks: Sequence[str]) -> Iterator[Score]:
        subset = subset_name(self._sets[number["tasks"]])
        for point, chosen in self._chosen.items():
            mine = (*point[:3], point.method, point.subset) == (*run, number["method"], subset)
            if not mine or not _states(number["options"], point.options):
                continue
            scale = self._scale(number["lambda"], point, chosen)
            if scale is None:
                continue
            if number["task"] == AVERAGE and scale == chosen["lambda"]:
                yield _chosen_average(point, chosen, number["metric"])
                continue
            cells = [self._cells.get((point, scale, task, number["split"])) for task in tasks]
            if number["metric"] == "accuracy":
                yield from _accuracy(point, scale, number, tasks, cells)
            else:
                yield from _normalized(point, scale, cells, self._own(run, number, tasks))

    def _scale(self, rule: str, point: _Point, chosen: Row) -> str | None:
        """Return the lambda of the run that a published rule stands for; None: there is none."""
        if rule in _CHOSEN_RULES:
            return str(chosen["lambda"]) if len(self._swept.get(point, ())) > 1 else None
        return None if rule == "test" else rule or "1.00"

    def _mean_of_pairs(self, run: _Run, number: Row, tasks: Sequence[str]) -> Iterator[Score]:
        names = {subset_name(pair) for pair in itertools.combinations(tasks, 2)}
        rows = self._pairs[self._pairs["subset"].isin(names)]
        rows = rows[rows["method"] == number["method"]]
        for at, part in rows.groupby([*_Point._fields[:5]], sort=True):
            point = _point([*at, subset_name(tasks)])
            if point[:3] == run and len(part) == len(names):
                score = float(part[f"test_{number['metric']}"].mean(skipna=False))
                yield Score(point, "", AVERAGE, score, math.nan, math.nan, None)


def _point(values: Sequence[Any]) -> _Point:
    model, mode, seed, *merge = values
    if pd.isna(seed):
        return _Point(model, None, None, *merge)
    return _Point(model, mode, int(seed), *merge)


def _states(published: str, options: str) -> bool:
    """Return whether a method's options are those that a publication states."""
    own = json.loads(options or "{}")
    return all(own.get(key) == value for key, value in json.loads(published or "{}").items())


def _accuracy(
    point: _Point,
    scale: str,
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
        yield Score(point, scale, task, cell.accuracy, float(low), float(high), cell.n)
        return
    pairs = [
        Pair(
            cell.correct,
            0,
            0,
            cell.n - cell.correct,
            derive_seed("published", *map(str, point), task),
        )
        for task, cell in zip(tasks, known, strict=True)
    ]
    interval, _ = mean_intervals(pairs)
    mean = math.fsum(cell.accuracy for cell in known) / len(known)
    yield Score(point, scale, AVERAGE, mean, interval.low, interval.high, None)


def _normalized(
    point: _Point, scale: str, cells: Sequence[_Cell | None], own: Sequence[_Cell | None]
) -> Iterator[Score]:
    ratios = [
        cell.correct / expert.correct
        for cell, expert in zip(cells, own, strict=True)
        if cell is not None and expert is not None and expert.correct
    ]
    if len(ratios) == len(cells):
        mean = math.fsum(ratios) / len(ratios)
        yield Score(point, scale, AVERAGE, mean, math.nan, math.nan, None)


def _chosen_average(point: _Point, chosen: Row, metric: str) -> Score:
    value, low, high = (float(chosen[f"test_{metric}{end}"]) for end in ("", "_low", "_high"))
    return Score(point, str(chosen["lambda"]), AVERAGE, value, low, high, None)
