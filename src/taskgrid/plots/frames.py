"""From result tables to what the figures draw: pure functions of pandas frames.

Scores stay fractions here; the figures print percent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from taskgrid.plots.style import label

REFERENCE_METHODS = ("zeroshot", "expert")
"""Rows of these methods are levels to compare with, not merges."""

POINT = ["model", "mode", "seed", "method", "options", "subset", "size", "point"]
"""The columns that name a grid point."""


@dataclass(frozen=True)
class Panel:
    """The rows that one panel of a figure shows, and the words above it."""

    title: str
    model: str
    mode: str
    rows: pd.DataFrame


def panels(rows: pd.DataFrame, *more: str) -> list[Panel]:
    """Cut rows into panels, in the order of the names; titles name only what tells panels apart.

    Args:
        rows: a table of runs: of models, and of studies and modes where it tells them.
        more: ``method`` and ``options`` for a panel per method.
    """
    by = [*(key for key in ("study", "model", "mode") if key in rows), *more]
    several = {key for key in by if rows[key].nunique(dropna=False) > 1}
    titles = method_titles(rows) if "method" in by else {}
    cut = []
    for values, part in rows.groupby(by, sort=True, dropna=False):
        named = dict(zip(by, map(str, values), strict=True))
        telling = [key for key in by if key in several and key not in ("method", "options")]
        words = [" · ".join(label(named[key]) for key in telling)]
        if titles:
            words.append(titles[named["method"], named["options"]])
        title = "\n".join(word for word in words if word)
        mode = named.get("mode", "")
        cut.append(Panel(title, named["model"], mode, part.reset_index(drop=True)))
    return cut


def method_titles(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return words for each (method, options), in their order; options only where they tell apart."""
    pairs = (
        rows[["method", "options"]].drop_duplicates().astype(str).sort_values(["method", "options"])
    )
    titles = {}
    for method, part in pairs.groupby("method", sort=True):
        for options, words in zip(
            part["options"], option_words(list(part["options"])), strict=True
        ):
            titles[str(method), options] = ", ".join([label(str(method)), *words])
    return titles


def merge_titles(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return ``method_titles`` of merges alone, without the base and experts."""
    return method_titles(rows[~rows["method"].isin(REFERENCE_METHODS)])


def option_words(versions: Sequence[str]) -> list[list[str]]:
    """Print the options (JSON objects) in which versions of a method differ: ``density=0.2``."""
    named = [json.loads(options or "{}") for options in versions]
    keys = sorted({key for options in named for key in options})
    telling = [key for key in keys if len({str(options.get(key)) for options in named}) > 1]
    return [
        [f"{label(key)}={options[key]}" for key in telling if key in options] for options in named
    ]


def merged_rows(grid: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of merges on a split, each task inside its subset."""
    inside = grid["in_subset"].astype(bool)
    return grid[~grid["method"].isin(REFERENCE_METHODS) & (grid["split"] == split) & inside]


def subset_means(grid: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return one row per grid point of a sweep: its scores averaged over the tasks of its subset.

    Points below zero are left out, and those whose tasks have coefficients of their own: a curve has no
    place for them. A mean is ``interpolated`` where any of its rows is; its ``bound`` is the mean of
    theirs, a measured row counting as 0.
    """
    rows = merged_rows(grid, split)
    rows = rows[rows["scale"].astype(float) >= 0]
    rows = rows.assign(
        interpolated=rows["interpolated"].astype(bool),
        bound=rows["bound"].astype(float).fillna(0.0),
    )
    grouped = rows.groupby([*POINT, "scale"], sort=True, dropna=False, as_index=False)
    return grouped.agg(
        accuracy=("accuracy", "mean"),
        normalized_accuracy=("normalized_accuracy", "mean"),
        interpolated=("interpolated", "any"),
        bound=("bound", "mean"),
    )


def chosen_points(selected: pd.DataFrame, study: str = "addition") -> pd.DataFrame:
    """Return the chosen points of a study.

    Where several rules chose, the first one of the table counts.
    """
    rows: pd.DataFrame = selected[selected["study"] == study]
    if rows.empty:
        return rows
    rows = rows[rows["rule"] == rows["rule"].iloc[0]]
    return rows.reset_index(drop=True)


def chosen_scores(grid: pd.DataFrame, selected: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of merges on a split at each subset's chosen point."""
    chosen = chosen_points(selected)
    return merged_rows(grid, split).merge(chosen[POINT], on=POINT, how="inner")


def reference_scores(grid: pd.DataFrame, split: str, model: str, mode: str) -> pd.DataFrame:
    """Return, per task, zero-shot accuracy and the own expert's (mean over seeds).

    Returns:
        A frame indexed by task with the columns ``zero-shot`` and ``experts``; a score that was not
        measured is NaN.
    """
    rows = grid[(grid["split"] == split) & (grid["model"] == model)]
    zero = rows[rows["method"] == "zeroshot"]
    own = rows[
        (rows["method"] == "expert") & (rows["mode"] == mode) & (rows["subset"] == rows["task"])
    ]
    return pd.DataFrame(
        {
            "zero-shot": zero.groupby("task")["accuracy"].mean(),
            "experts": own.groupby("task")["accuracy"].mean(),
        }
    )


def tasks_of(subsets: pd.Series) -> set[str]:
    """Return the tasks of subsets (``a+b``)."""
    return {task for name in subsets.unique() for task in str(name).split("+")}
