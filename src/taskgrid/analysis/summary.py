"""The table a paper prints: zero-shot, experts, and every method by number of merged tasks."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from taskgrid.errors import DataError
from taskgrid.lattice.subsets import subset_name
from taskgrid.plugins.cards import merger_card
from taskgrid.plugins.storage import EXPERTS, MODEL, Tower
from taskgrid.store.tables import csv_path

LEADING = (
    "model",
    "mode",
    "seed",
    "method",
    "options",
    "row",
    "size",
    "subsets",
    "point",
    "scale",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "accuracy_min",
    "normalized",
    "normalized_low",
    "normalized_high",
    "normalized_min",
    "edges",
    "bits_per_weight",
    "storage_mb",
)
"""The columns before those of the tasks.

``row`` is what a line is about: ``zeroshot`` (the base), ``expert`` (each expert on its own task),
``size`` (the ``subsets`` of one size, each at its own chosen point: means and minima over them),
``all`` (the merge of all tasks, at the ``point`` shown, with its interval). All numbers are
fractions of the test split: ``accuracy`` is a mean over tasks, ``normalized`` the mean of accuracy
relative to the task's expert, ``*_min`` the worst subset's, ``edges`` how many of the subsets chose
the first or last point of their sweep. ``bits_per_weight`` and ``storage_mb`` are kept beside the
base: by a single model, which takes its place, nothing.
"""

PUBLISHED = ("published", "difference", "published_from")
"""The columns that ``with_published`` adds after ``LEADING``.

``published`` is the first number found for the mean accuracy of a line, in the order of the
configured lineages; ``published_from`` says whose it is, and what other sources of the lineage print;
``difference`` is the line's accuracy minus it.
"""

_RUN = ["model", "mode", "seed"]
_METHOD = ["method", "options"]


def summarise(
    grid: pd.DataFrame,
    selected: pd.DataFrame,
    tasks: Sequence[str],
    study: str = "addition",
    towers: Mapping[str, Tower] | None = None,
) -> pd.DataFrame:
    """Return the summary, one line per row of a printed table.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        tasks: the tasks, in the order of their columns.
        study: whose choices are shown.
        towers: model -> the size of its image tower, by which storage is counted; where it is not named
            its lines have none.

    Returns:
        The columns ``LEADING``, then one per task with the accuracy on it: of the base, of its own
        expert, of the merges that contain it.

    Raises:
        DataError: if the test row of the base or of an expert is missing.
    """
    test = grid[grid["split"] == "test"]
    chosen = selected[selected["study"] == study]
    experts = test[test["method"] == "expert"]
    lines: list[dict[str, Any]] = []
    for run, part in experts.groupby(_RUN, sort=True):
        own = part[part["subset"] == part["task"]]
        expert = _by_task(own, tasks, f"expert of {run[0]}, {run[1]}, seed {run[2]}")
        base = test[(test["method"] == "zeroshot") & (test["model"] == run[0])]
        zeroshot = _by_task(base, tasks, f"zero-shot model {run[0]}")
        named = dict(zip(_RUN, run, strict=True))
        for kind, size, scores in (("zeroshot", 0, zeroshot), ("expert", 1, expert)):
            words = {"method": kind, "options": "{}", "row": kind, "size": size}
            lines.append({**named, **words, **_reference(scores, expert)})
        lines += [{**named, **line} for line in _methods(_of(chosen, run), _of(test, run), tasks)]
    for line in lines:
        line.update(_kept(line, (towers or {}).get(line["model"]), len(tasks)))
    frame = pd.DataFrame(lines, columns=[*LEADING, *tasks])
    return frame.astype(dict.fromkeys(("seed", "size", "subsets", "edges"), "Int64"))


def with_published(
    summary: pd.DataFrame, compared: pd.DataFrame, tasks: Sequence[str]
) -> pd.DataFrame:
    """Return the summary with the columns ``PUBLISHED``: the literature's number of each line.

    Args:
        summary: what ``summarise`` returned.
        compared: published numbers beside the run's, as ``comparison.compare`` returns them.
        tasks: the tasks of the summary; numbers of other sets of tasks are left out.
    """
    means = compared[
        (compared["task"] == "average")
        & (compared["split"] == "test")
        & (compared["metric"] == "accuracy")
        & (compared["subset"] == subset_name(tasks))
    ]
    beside = [_published(line, means) for line in summary.to_dict("records")]
    columns = pd.DataFrame(beside, columns=[*PUBLISHED], index=summary.index)
    columns = columns.astype({"published": float, "difference": float})
    place = len(LEADING)
    return pd.concat([summary.iloc[:, :place], columns, summary.iloc[:, place:]], axis="columns")


def _published(line: Mapping[Hashable, Any], means: pd.DataFrame) -> dict[str, Any]:
    rows = means[(means["method"] == line["method"]) & (means["model"] == line["model"])]
    if line["row"] != "zeroshot":
        rows = _of(rows, (line["model"], line["mode"], line["seed"]))
    if line["row"] == "all":
        rows = rows[(rows["options"] == line["options"]) & (rows["point"] == line["point"])]
    if rows.empty or line["row"] == "size":
        return {}
    first = rows.iloc[0]
    words = f"{first['lineage']}: {first['source']}"
    if first["published_low"] < first["published_high"]:
        low, high = 100 * first["published_low"], 100 * first["published_high"]
        words += f" (this lineage: {low:.4g} to {high:.4g} %)"
    return {
        "published": first["published"],
        "difference": line["accuracy"] - first["published"],
        "published_from": words,
    }


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, with six decimals: rounded again for print, a number stays what it was.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with csv_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def _kept(line: Mapping[str, Any], tower: Tower | None, tasks: int) -> dict[str, float]:
    """Return what a line's models take beside the base."""
    if tower is None:
        return {}
    if line["row"] in ("zeroshot", "expert"):
        storage, merged = (MODEL if line["row"] == "zeroshot" else EXPERTS), tasks
    else:
        storage, merged = merger_card(line["method"]).storage, line["size"]
    options = json.loads(line["options"])
    return {
        "bits_per_weight": storage.bits_per_weight(tower, merged, options),
        "storage_mb": storage.megabytes(tower, merged, options),
    }


def _methods(
    chosen: pd.DataFrame, test: pd.DataFrame, tasks: Sequence[str]
) -> Iterator[dict[str, Any]]:
    on = [*_METHOD, "subset", "point"]
    scores = test.merge(chosen[on].drop_duplicates(), on=on, how="inner")
    scores = scores[scores["in_subset"].astype(bool)]
    for method, points in chosen.groupby(_METHOD, sort=True):
        named = dict(zip(_METHOD, method, strict=True))
        rows = scores[(scores["method"] == method[0]) & (scores["options"] == method[1])]
        for size, group in points.groupby("size", sort=True):
            yield {**named, "row": "size", "size": size, **_group(group, rows, tasks)}
        everything = points[points["size"] == len(tasks)]
        if len(everything) == 1:
            point = everything.iloc[0]
            yield {
                **named,
                "row": "all",
                "size": len(tasks),
                **_group(everything, rows, tasks),
                "point": point["point"],
                "scale": point["scale"],
                "accuracy_low": point["test_accuracy_low"],
                "accuracy_high": point["test_accuracy_high"],
                "normalized_low": point["test_normalized_low"],
                "normalized_high": point["test_normalized_high"],
            }


def _group(group: pd.DataFrame, rows: pd.DataFrame, tasks: Sequence[str]) -> dict[str, Any]:
    inside = rows[rows["subset"].isin(group["subset"])]
    means = inside.groupby("task")["accuracy"].mean()
    return {
        "subsets": len(group),
        "accuracy": group["test_accuracy"].mean(),
        "accuracy_min": group["test_accuracy"].min(),
        "normalized": group["test_normalized"].mean(),
        "normalized_min": group["test_normalized"].min(),
        "edges": int(group["at_edge"].sum()),
        **{task: means[task] for task in tasks if task in means.index},
    }


def _reference(scores: pd.Series[float], expert: pd.Series[float]) -> dict[str, Any]:
    relative = scores / expert.where(expert > 0)
    return {
        "accuracy": scores.mean(),
        "normalized": relative.mean(skipna=False),
        **{str(task): score for task, score in scores.items()},
    }


def _by_task(rows: pd.DataFrame, tasks: Sequence[str], what: str) -> pd.Series[float]:
    scores: pd.Series[float] = rows.set_index("task")["accuracy"]
    for task in tasks:
        if task not in scores.index:
            raise DataError(f"the {what} has no test row on task {task!r}; run the reference rule")
    return scores[list(tasks)]


def _of(frame: pd.DataFrame, run: tuple[Any, ...]) -> pd.DataFrame:
    model, mode, seed = run
    same = (frame["model"] == model) & (frame["mode"] == mode) & frame["seed"].eq(seed)
    part: pd.DataFrame = frame[same.fillna(False).astype(bool)]
    return part
