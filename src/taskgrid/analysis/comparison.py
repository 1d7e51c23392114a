"""Published numbers beside the run's: like with like, and where zero-shot disagrees, said aloud.

A number is set beside another only when both answer the same question: same weights, same way of
fine-tuning, same tasks, same rule for lambda, same split. Zero-shot accuracy needs no training and
no choice, so a difference beyond chance means that something else differs: the test images, the
class names, the preprocessing or the weights. That is a lineage problem; it has a sentence of its
own and is never hidden in an average.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from taskgrid.analysis.literature import flag_words, task_sets
from taskgrid.lattice.subsets import parse_subset, subset_name
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.intervals import Pair, mean_intervals, wilson

COLUMNS = (
    "model",
    "mode",
    "seed",
    "lineage",
    "source",
    "method",
    "options",
    "lambda_rule",
    "lambda",
    "subset",
    "task",
    "split",
    "metric",
    "n",
    "run",
    "run_low",
    "run_high",
    "published",
    "published_low",
    "published_high",
    "difference",
    "inside",
    "problem",
    "note",
)
"""The columns of the comparison; scores are fractions.

``subset`` holds the tasks that were merged or, of zero-shot and experts, averaged over; ``task`` is
one of them or ``average``. ``run_low`` and ``run_high``: the run's 95 % interval (Wilson's for a
task, the paired bootstrap of the chosen points for their averages, a bootstrap over counts for other
averages). ``published_low`` and ``published_high``: the smallest and the largest number that the
sources of the lineage print for the same thing. ``difference`` is run minus published; ``inside``:
the published number lies in the run's interval; ``problem``: a lineage problem.
"""

AVERAGE = "average"

_SAME = ["lineage", "study", "model", "mode", "method", "options", "lambda", "tasks", "task"]
_SAME += ["split", "metric"]
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

_Record = Mapping[Hashable, Any]
"""A row of a table, by the names of its columns."""


class _Cell(NamedTuple):
    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.n


class _Score(NamedTuple):
    """A number of the run with its interval: of one task and its ``n`` images, or an average."""

    point: _Point
    scale: str
    task: str
    value: float
    low: float
    high: float
    n: int | None


def compare(
    grid: pd.DataFrame, selected: pd.DataFrame, published: pd.DataFrame, names: Names
) -> pd.DataFrame:
    """Set published numbers beside the run's.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        published: numbers as ``read_numbers`` returns them.
        names: which of the run's names stand for which published ones.

    Returns:
        The columns ``COLUMNS``: one row per published number and run that has its like, in the
        order of the numbers.
    """
    book = _Book(grid, selected, names)
    numbers = _with_bands(published)
    rows = [
        _row(number, score)
        for number in numbers.to_dict("records")
        for model, theirs in names.models.items()
        if theirs == number["model"] and number["study"] != "negation"
        for score in book.scores(model, number)
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    table = table.astype({"seed": "Int64", "n": "Int64", "problem": bool})
    return _warn_averages(table)


def problem_sentences(table: pd.DataFrame) -> list[str]:
    """Return a sentence per task whose zero-shot accuracy no source of a lineage agrees with.

    Args:
        table: what ``compare`` returned.
    """
    zeroshot = table[(table["method"] == "zeroshot") & (table["task"] != AVERAGE)]
    sentences = []
    for _, rows in zeroshot.groupby(["model", "lineage", "task", "split"], sort=False):
        if rows["problem"].all():
            nearest = rows.iloc[int(rows["difference"].abs().to_numpy().argmin())]
            sentences.append(_sentence(nearest))
    return sentences


def _sentence(row: pd.Series[Any]) -> str:
    return (
        f"lineage problem: zero-shot accuracy of {row['model']} on {row['task']} ({row['split']}) is "
        f"{100 * row['run']:.2f} %, published {100 * row['published']:.2f} % "
        f"({row['lineage']}: {row['source']}); {row['note']}"
    )


class _Book:
    """The run's rows, found by what they are rows of."""

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
        self._chosen: dict[_Point, _Record] = {}
        for line in addition.to_dict("records"):
            point = _point([line[name] for name in _Point._fields])
            self._chosen.setdefault(point, line)

    def scores(self, model: str, number: _Record) -> Iterator[_Score]:
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

    def _tasks(self, number: _Record) -> tuple[str, ...]:
        if number["task"] == AVERAGE:
            return self._sets.get("8" if number["tasks"] == _PAIRS else number["tasks"], ())
        return (self._ours[number["task"]],) if number["task"] in self._ours else ()

    def _zeroshot(self, model: str, number: _Record, tasks: Sequence[str]) -> Iterator[_Score]:
        base = _Point(model, None, None, "zeroshot", "{}", "")
        cells = [self._cells.get((base, "0.00", task, number["split"])) for task in tasks]
        yield from _accuracy(base._replace(subset=subset_name(tasks)), "", number, tasks, cells)

    def _experts(self, run: _Run, number: _Record, tasks: Sequence[str]) -> Iterator[_Score]:
        point = _Point(*run, method="expert", options="{}", subset=subset_name(tasks))
        yield from _accuracy(point, "", number, tasks, self._own(run, number, tasks))

    def _own(self, run: _Run, number: _Record, tasks: Sequence[str]) -> list[_Cell | None]:
        point = _Point(*run, method="expert", options="{}", subset="")
        return [
            self._cells.get((point._replace(subset=task), "1.00", task, number["split"]))
            for task in tasks
        ]

    def _merges(self, run: _Run, number: _Record, tasks: Sequence[str]) -> Iterator[_Score]:
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

    def _scale(self, rule: str, point: _Point, chosen: _Record) -> str | None:
        """Return the lambda of the run that a published rule stands for; None: there is none."""
        if rule in _CHOSEN_RULES:
            return str(chosen["lambda"]) if len(self._swept.get(point, ())) > 1 else None
        return None if rule == "test" else rule or "1.00"

    def _mean_of_pairs(self, run: _Run, number: _Record, tasks: Sequence[str]) -> Iterator[_Score]:
        names = {subset_name(pair) for pair in itertools.combinations(tasks, 2)}
        rows = self._pairs[self._pairs["subset"].isin(names)]
        rows = rows[rows["method"] == number["method"]]
        for at, part in rows.groupby([*_Point._fields[:5]], sort=True):
            point = _point([*at, subset_name(tasks)])
            if point[:3] == run and len(part) == len(names):
                score = float(part[f"test_{number['metric']}"].mean(skipna=False))
                yield _Score(point, "", AVERAGE, score, math.nan, math.nan, None)


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
    number: _Record,
    tasks: Sequence[str],
    cells: Sequence[_Cell | None],
) -> Iterator[_Score]:
    known = [cell for cell in cells if cell is not None]
    if len(known) < len(tasks):
        return
    if number["task"] != AVERAGE:
        (task,), (cell,) = tasks, known
        low, high = wilson(cell.correct, cell.n)
        yield _Score(point, scale, task, cell.accuracy, float(low), float(high), cell.n)
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
    yield _Score(point, scale, AVERAGE, mean, interval.low, interval.high, None)


def _normalized(
    point: _Point, scale: str, cells: Sequence[_Cell | None], own: Sequence[_Cell | None]
) -> Iterator[_Score]:
    ratios = [
        cell.correct / expert.correct
        for cell, expert in zip(cells, own, strict=True)
        if cell is not None and expert is not None and expert.correct
    ]
    if len(ratios) == len(cells):
        mean = math.fsum(ratios) / len(ratios)
        yield _Score(point, scale, AVERAGE, mean, math.nan, math.nan, None)


def _chosen_average(point: _Point, chosen: _Record, metric: str) -> _Score:
    value, low, high = (float(chosen[f"test_{metric}{end}"]) for end in ("", "_low", "_high"))
    return _Score(point, str(chosen["lambda"]), AVERAGE, value, low, high, None)


def _with_bands(published: pd.DataFrame) -> pd.DataFrame:
    groups = published.groupby(_SAME, sort=False)
    return published.assign(
        images=published["images"].astype("float64"),
        low=groups["value"].transform("min"),
        high=groups["value"].transform("max"),
        sources=groups["source"].transform("nunique"),
    )


def _row(number: _Record, score: _Score) -> dict[str, Any]:
    published, lowest, highest = (_share(number[key]) for key in ("value", "low", "high"))
    known = math.isfinite(score.low) and math.isfinite(score.high)
    problem = _problem(number, score)
    remarks = [problem, *_remarks(number, score)] if problem else _remarks(number, score)
    return {
        **score.point._asdict(),
        "lineage": number["lineage"],
        "source": number["source"],
        "lambda_rule": number["lambda"],
        "lambda": score.scale,
        "task": score.task,
        "split": number["split"],
        "metric": number["metric"],
        "n": score.n,
        "run": score.value,
        "run_low": score.low,
        "run_high": score.high,
        "published": published,
        "published_low": lowest,
        "published_high": highest,
        "difference": score.value - published,
        "inside": score.low <= published <= score.high if known else None,
        "problem": bool(problem),
        "note": "; ".join(remarks),
    }


def _share(percent: float) -> float:
    return round(percent / 100, 6)  # the printed digits, not 70.4 / 100 = 0.7040000000000001


def _problem(number: _Record, score: _Score) -> str:
    """Say how a zero-shot accuracy disagrees beyond chance with a published one, if it does."""
    if number["method"] != "zeroshot" or score.n is None:
        return ""
    n = score.n if math.isnan(number["images"]) else min(score.n, int(number["images"]))
    low, high = wilson(number["value"] / 100 * n, n)
    if low <= score.value <= high:
        return ""
    return (
        f"outside of {100 * float(low):.2f} to {100 * float(high):.2f} % (95 %, {n:,} images): "
        "another split, other class names or templates, other preprocessing, or other weights"
    )


def _remarks(number: _Record, score: _Score) -> list[str]:
    remarks = [number["note"]] if number["note"] else []
    remarks += [flag_words()[flag] for flag in number["flags"].split("+") if flag]
    there = number["images"]
    if score.n is not None and not math.isnan(there) and score.n != there:
        remarks.append(f"{score.n:,} images here, {there:,.0f} there")
    if number["sources"] > 1 and number["low"] < number["high"]:
        remarks.append(
            f"{number['sources']} sources of this lineage print {number['low']:g} to "
            f"{number['high']:g} %"
        )
    return remarks


def _warn_averages(table: pd.DataFrame) -> pd.DataFrame:
    """Name, in the notes of averages, the tasks whose zero-shot accuracy disagrees."""
    found = table[table["problem"] & (table["split"] == "test")]
    notes = table["note"].tolist()
    for place, row in enumerate(table.to_dict("records")):
        if row["task"] != AVERAGE:
            continue
        same = (found["model"] == row["model"]) & (found["lineage"] == row["lineage"])
        tasks = set(found.loc[same, "task"]) & set(parse_subset(row["subset"]))
        if tasks:
            words = f"zero-shot disagrees on {', '.join(sorted(tasks))}: see there"
            notes[place] = "; ".join(filter(None, [notes[place], words]))
    return table.assign(note=notes)
