"""What the explorer's page knows, from the tables: counts of right answers, chosen points, names.

Counts and no shares: the page divides and draws its intervals itself, so that a row is a few digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from taskgrid.explorer.exact import Margins, Run, fitted
from taskgrid.lattice.points import point_order
from taskgrid.plots.frames import REFERENCE_METHODS, method_titles
from taskgrid.tracking.building.identity import merge_id

SPLITS = ("val", "test")
_RUN = ["model", "mode", "seed"]
_MOST_KEYS = 100_000
"""Rows whose keys the page holds; of a larger grid it holds those of points that were chosen."""

Counts: TypeAlias = dict[str, list[int | None]]
"""A number for each task, by split; None where nothing was measured."""


def content(
    grid: pd.DataFrame,
    selected: pd.DataFrame,
    margins: Sequence[Margins],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the page shows, as JSON holds it.

    Args:
        grid: the grid.
        selected: the chosen points.
        margins: of each run of tangent models, what decides about its images.
        settings: ``tasks`` in their order; ``methods``: of each its label, name, options, what it gives
            (as on its card), whether it is a plain ``sum`` of task vectors; ``files``: the configuration
            files that the workflow was called with.
    """
    known = settings["tasks"]
    # A grid may hold what the configuration no longer names.
    tasks = [*known, *sorted(set(grid["task"].astype(str)) - set(known))]
    place = {task: at for at, task in enumerate(tasks)}
    rows = _numbered(grid, selected, place)
    merged = rows[~rows["method"].isin(REFERENCE_METHODS)]
    exact = fitted(margins, merged[_is_sum(merged, settings["methods"])], place)
    titles = method_titles(merged)
    return {
        "tasks": tasks,
        "files": list(settings["files"]),
        "runs": [
            {
                **dict(zip(_RUN, run, strict=True)),
                **_references(rows, len(tasks), run),
                "tangent": run in {one.run for one in margins},
                "exact": exact.get(run),
                "merges": _merges(
                    run, _of_run(merged, run), _of_run(selected, run), titles, settings
                ),
            }
            for run in sorted(
                (str(model), str(mode), int(seed))
                for model, mode, seed in merged[_RUN].drop_duplicates().to_numpy()
            )
        ],
    }


def _merges(
    run: Run,
    rows: pd.DataFrame,
    chosen: pd.DataFrame,
    titles: Mapping[tuple[str, str], str],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the methods that merged the experts of a run, each with its grid."""
    return [
        {
            "title": title,
            "run": merge_id(*run, method, options, ""),
            **_known(method, options, settings["methods"]),
            **_merge(_of(rows, method, options), _of(chosen, method, options)),
        }
        for (method, options), title in titles.items()
        if not _of(rows, method, options).empty
    ]


def _numbered(grid: pd.DataFrame, selected: pd.DataFrame, place: Mapping[str, int]) -> pd.DataFrame:
    """Return the grid with plain text, and tasks as their places."""
    text = {name: grid[name].astype(str) for name in ("method", "options", "subset", "point")}
    rows = grid.assign(**text, task=grid["task"].map(place), key=grid["key"].astype(str))
    if len(rows) > _MOST_KEYS:
        names = [*_RUN, "method", "options", "subset", "point"]
        kinds = {**dict.fromkeys(names, "str"), "seed": "Int64"}
        points = selected[names].astype(kinds).drop_duplicates()
        chosen = rows[names].astype(kinds).merge(points, how="left", on=names, indicator=True)
        rows["key"] = rows["key"].where((chosen["_merge"] == "both").to_numpy(), "")
    return rows


def _is_sum(rows: pd.DataFrame, methods: Iterable[Mapping[str, Any]]) -> pd.Series[bool]:
    plain = [_known(method, options, methods)["sum"] for method, options in _pairs(rows)]
    sums = [pair for pair, is_sum in zip(_pairs(rows), plain, strict=True) if is_sum]
    pairs = pd.Series(list(zip(rows["method"], rows["options"], strict=True)), index=rows.index)
    return pairs.isin(sums)


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    found = rows[["method", "options"]].drop_duplicates()
    return list(zip(found["method"], found["options"], strict=True))


def _known(method: str, options: str, methods: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the configuration knows of a method; nothing of one that is no longer in it."""
    own = {name: value for name, value in json.loads(options).items() if name != "storage"}
    for one in methods:
        if (one["name"], one["options"]) == (method, own):
            return {name: one[name] for name in ("label", "gives", "sum")}
    return {"label": None, "gives": "model", "sum": False}


def _of(rows: pd.DataFrame, method: str, options: str) -> pd.DataFrame:
    return rows[(rows["method"] == method) & (rows["options"] == options)]


def _of_run(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    model, mode, seed = run
    return rows[(rows["model"] == model) & (rows["mode"] == mode) & (rows["seed"] == seed)]


def _references(rows: pd.DataFrame, tasks: int, run: Run) -> dict[str, Counts]:
    """Return how many images there are of each task, and how many the base and its own expert get right."""
    there, of_run = rows[rows["model"] == run[0]], _of_run(rows, run)
    own = of_run[(of_run["method"] == "expert") & of_run["in_subset"].astype(bool)]
    return {
        "n": _counts(there, tasks, "n"),
        "zeroshot": _counts(there[there["method"] == "zeroshot"], tasks, "correct"),
        "expert": _counts(own, tasks, "correct"),
    }


def _counts(rows: pd.DataFrame, tasks: int, column: str) -> Counts:
    found = {}
    for split in SPLITS:
        there = rows[rows["split"] == split].drop_duplicates("task").set_index("task")[column]
        found[split] = [int(there[task]) if task in there.index else None for task in range(tasks)]
    return found


def _merge(rows: pd.DataFrame, chosen: pd.DataFrame) -> dict[str, Any]:
    points = sorted(rows["point"].unique(), key=point_order)
    place = {point: at for at, point in enumerate(points)}
    return {
        "points": points,
        "subsets": {
            subset: {"rows": [_row(row, place) for row in part.itertuples()]}
            for subset, part in rows.groupby("subset", sort=True)
        },
        "chosen": [_choice(row) for row in chosen.itertuples()],
    }


def _row(row: Any, place: Mapping[str, int]) -> list[Any]:
    found = [row.split, place[row.point], row.task, int(row.correct), row.key]
    return [*found, float(row.bound)] if row.interpolated else found


def _choice(row: Any) -> dict[str, Any]:
    return {
        **{
            name: str(getattr(row, name))
            for name in ("study", "about", "subset", "tasks", "point", "rule")
        },
        "at_edge": bool(row.at_edge),
        "met": bool(row.met),
        "test_low": _number(row.test_accuracy_low),
        "test_high": _number(row.test_accuracy_high),
    }


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
