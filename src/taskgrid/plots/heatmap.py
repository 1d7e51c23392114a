"""What every subset does to each of its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskgrid.plots import frames, matrices, style
from taskgrid.plots.sheet import TALLEST, Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Subset by task",
    category="Task addition",
    tables=("grid", "selected"),
    caption="""
    Normalised accuracy on the **test** split of each task (columns) in each merge (rows) at the
    λ chosen on **validation** for that merge (first maximum of mean normalised accuracy), mean
    over seeds; the mean of the row; and that λ, with several seeds their range. A row is one
    subset of tasks, blank cells are tasks outside it; where names are too long, numbers stand
    for tasks. The first row is the pre-trained model (zero-shot). Equals sign: a merge of one
    task that is its expert, 100 by definition. Where the subsets are too many to print one by
    one, a row stands for all subsets of one size and a cell is the mean over those that contain
    the task.
    """,
)

_MEAN = "mean"
_ZERO = "zero-shot"
_CELL = 0.2
"""Inches that a cell with two digits takes."""
_SCALE = 0.3
"""Inches that the column of chosen coefficients takes at least."""


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw the subset by task matrix: a panel per method, model and mode."""
    scores = _telling(frames.chosen_scores(tables["grid"], tables["selected"], "test"))
    if scores.empty:
        return sheet.message("no scaling coefficient was chosen yet")
    cut = frames.panels(scores, "method", "options")
    tasks = sheet.ordered(scores["task"])
    subsets = sheet.subsets(scores["subset"])
    words, heads = _names(subsets, tasks, 0.36 * sheet.inches)
    by, keys = "subset", ["+".join(sorted(subset)) for subset in subsets]
    sizes = [len(subset) for subset in subsets]
    columns = _across(sheet, scores, words, tasks)
    if _height(-(-len(cut) // columns), words) > TALLEST - 0.1:
        by, keys, heads = "size", sorted({*sizes}), tasks
        words = [f"{size} task{'s' if size > 1 else ''}" for size in keys]
        sizes, columns = keys, _across(sheet, scores, words, tasks)
    cells = [_cells(panel, tables["grid"], by, keys, tasks) for panel in cut]
    shown = [_shown(each, sizes) for each in cells]
    lines = -(-len(cut) // columns)
    figure = sheet.figure(_height(lines, words))
    axes = figure.subplots(lines, columns, squeeze=False)
    limits = matrices.score_range(np.concatenate([each.to_numpy().ravel() for each in shown]))
    scales = [_scales(panel.rows, by, keys) for panel in cut]
    longest = max(chain(*scales), key=len)
    widest = style.text_width(longest, style.SMALLEST) + 0.1
    room = (sheet.inches - matrices.width_of_names([_ZERO, *words])) / columns - 0.08
    cell = (room - widest) / (len(tasks) + 1)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        mesh = matrices.draw_cells(each, shown[index], limits, "viridis", cell)
        for row, column in np.argwhere(_is_expert(cells[index], sizes)):
            _say(each, column + 0.5, row, "=")
        wide = widest / cell
        for row, text in enumerate(scales[index], start=1):
            _say(each, len(tasks) + 1 + wide / 2, row, text)
        each.set_xlim(0, len(tasks) + 1 + wide)
        places = [*np.arange(len(tasks) + 1) + 0.5, len(tasks) + 1 + wide / 2]
        style.name_columns(
            each, places, [*map(style.label, heads), _MEAN, "chosen λ"], cell, tilt=90
        )
        matrices.name_rows(each, [_ZERO, *words] if index % columns == 0 else [])
        each.axvline(len(tasks), color="white", linewidth=2.5)
        for row, (before, size) in enumerate(pairwise([0, *sizes]), start=1):
            if (size != before and by == "subset") or row == 1:
                each.axhline(row, color="white", linewidth=2.5)
        each.set_title(style.wrapped(panel.title, room))
    style.hide_unused(list(axes.ravel()), len(cut))
    drawn = list(axes.ravel()[: len(cut)])
    matrices.colour_bar(figure, mesh, drawn, "normalised accuracy on test [%]")
    return figure


def _height(lines: int, words: list[str]) -> float:
    return lines * ((len(words) + 1) * matrices.ROW + 0.75) + 0.4


def _telling(scores: pd.DataFrame) -> pd.DataFrame:
    """Leave out merges of one task where each of them is its expert, and there are others."""
    several = scores[scores["size"] > 1]
    alone = scores[scores["size"] == 1]
    return several if len(several) and (alone["normalized_accuracy"] == 1).all() else scores


def _names(
    subsets: Sequence[tuple[str, ...]], tasks: list[str], room: float
) -> tuple[list[str], list[str]]:
    """Return words for rows and columns; numbers stand for tasks where ``room`` inches are too few."""

    def named(words: dict[str, str], between: str) -> list[str]:
        found = []
        for subset in subsets:
            others = [words[task] for task in tasks if task not in subset]
            if not others and len(tasks) > 1:
                found.append("all")
            elif len(others) < len(subset):
                found.append(f"all but {between.join(others)}")
            else:
                found.append(between.join(words[task] for task in subset))
        return found

    rows = named({task: style.label(task) for task in tasks}, ", ")
    if matrices.width_of_names(rows) <= room:
        return rows, tasks
    numbers = {task: str(place) for place, task in enumerate(tasks, start=1)}
    return named(numbers, " "), [f"{numbers[task]} {task}" for task in tasks]


def _across(sheet: Sheet, scores: pd.DataFrame, words: list[str], tasks: list[str]) -> int:
    least = _CELL * (len(tasks) + 1) + _SCALE + 0.08
    beside = matrices.width_of_names([_ZERO, *words])
    runs = scores[["model", "mode"]].drop_duplicates()
    methods = len(frames.method_titles(scores))
    return sheet.across(len(runs) * methods, methods, least, beside)


def _cells(
    panel: frames.Panel, grid: pd.DataFrame, by: str, keys: Sequence[Any], tasks: list[str]
) -> pd.DataFrame:
    """Return normalised accuracy in percent: the base's, and a row for each key."""
    scores = frames.reference_scores(grid, "test", panel.model, panel.mode).reindex(tasks)
    zero = (scores["zero-shot"] / scores["experts"]).to_frame(_ZERO).T
    cells = panel.rows.pivot_table(
        index=by, columns="task", values="normalized_accuracy", aggfunc="mean"
    )
    return 100 * pd.concat([zero, cells.reindex(index=keys, columns=tasks)])


def _is_expert(cells: pd.DataFrame, sizes: Sequence[int]) -> np.ndarray:
    """Return where a merge of one task is as good as its expert to the last image."""
    alone = np.array([0, *sizes]) == 1
    return np.asarray(cells == 100) & alone[:, None]


def _shown(cells: pd.DataFrame, sizes: Sequence[int]) -> pd.DataFrame:
    """Return the cells without those that say nothing, and the mean of each row that has several."""
    shown = cells.mask(_is_expert(cells, sizes))
    return shown.assign(**{_MEAN: cells.mean(axis=1).where(shown.count(axis=1) > 1)})


def _scales(rows: pd.DataFrame, by: str, keys: Sequence[Any]) -> list[str]:
    """Print the coefficients of each key, or from which to which they go."""
    ends = rows.groupby(by)["scale"].agg(["min", "max"]).reindex(keys)
    return [
        "" if np.isnan(low) else f"{low:g}" if low == high else f"{low:g}–{high:g}"
        for low, high in ends.to_numpy(float)
    ]


def _say(axes: Axes, x: float, row: int, text: str) -> None:
    words = axes.text(x, row + 0.5, text, ha="center", va="center", fontsize=style.SMALLEST)
    words.set_in_layout(False)
