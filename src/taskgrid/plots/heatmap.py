"""What every subset does to each of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Rows:
    """What the rows below the first are.

    Attributes:
        by: the column that a row has one value of.
        keys: these values.
        sizes: how many tasks a row merges.
        words: names of the rows.
        heads: names of the tasks' columns.
    """

    by: str
    keys: list[Any]
    sizes: list[int]
    words: list[str]
    heads: list[str]

    @property
    def height(self) -> float:
        """Inches that a panel takes, with names and title."""
        return (len(self.words) + 1) * matrices.ROW + 0.75

    @property
    def beside(self) -> float:
        """Inches that the names take."""
        return matrices.width_of_names([_ZERO, *self.words])


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw the subset by task matrix: a panel per method, model and mode."""
    scores = _telling(frames.chosen_scores(tables["grid"], tables["selected"], "test"))
    if scores.empty:
        return sheet.message("no scaling coefficient was chosen yet")
    cut = frames.panels(scores, "method", "options")
    tasks = sheet.ordered(scores["task"])
    subsets = sheet.subsets(scores["subset"])
    methods = len(frames.method_titles(scores))
    least = _CELL * (len(tasks) + 1) + _SCALE + 0.08
    for rows in (_by_subset(subsets, tasks, 0.36 * sheet.inches), _by_size(subsets, tasks)):
        columns = sheet.across(len(cut), methods, least, rows.beside)
        height = -(-len(cut) // columns) * rows.height + 0.4
        if height < TALLEST - 0.1:
            break
    cells = [_cells(panel, tables["grid"], rows, tasks) for panel in cut]
    shown = [_shown(each, rows) for each in cells]
    scales = [_scales(panel.rows, rows) for panel in cut]
    figure = sheet.figure(height)
    axes = figure.subplots(-(-len(cut) // columns), columns, squeeze=False)
    limits = matrices.score_range(np.concatenate([each.to_numpy().ravel() for each in shown]))
    room = (sheet.inches - rows.beside) / columns - 0.08
    wide = style.text_width(max(chain(*scales), key=len), style.SMALLEST) + 0.06
    cell = (room - wide) / (len(tasks) + 1)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        mesh = matrices.draw_cells(each, shown[index], limits, "viridis", cell)
        for row, column in np.argwhere(_is_expert(cells[index], rows)):
            _say(each, column + 0.5, row, "=")
        _finish(each, rows, scales[index], cell, wide / cell)
        matrices.name_rows(each, [_ZERO, *rows.words] if index % columns == 0 else [])
        each.set_title(style.wrapped(panel.title, room))
    style.hide_unused(list(axes.ravel()), len(cut))
    drawn = list(axes.ravel()[: len(cut)])
    matrices.colour_bar(figure, mesh, drawn, "normalised accuracy on test [%]")
    return figure


def _telling(scores: pd.DataFrame) -> pd.DataFrame:
    """Leave out merges of one task where each of them is its expert, and there are others."""
    several = scores[scores["size"] > 1]
    alone = scores[scores["size"] == 1]
    return several if len(several) and (alone["normalized_accuracy"] == 1).all() else scores


def _by_subset(subsets: Sequence[tuple[str, ...]], tasks: list[str], room: float) -> _Rows:
    """Return a row per subset; numbers stand for tasks where names take more than ``room`` inches."""
    keys, sizes = ["+".join(sorted(subset)) for subset in subsets], [*map(len, subsets)]
    words = _names(subsets, {task: style.label(task) for task in tasks}, ", ")
    if matrices.width_of_names(words) <= room:
        return _Rows("subset", keys, sizes, words, tasks)
    numbers = {task: str(place) for place, task in enumerate(tasks, start=1)}
    heads = [f"{numbers[task]} {task}" for task in tasks]
    return _Rows("subset", keys, sizes, _names(subsets, numbers, " "), heads)


def _by_size(subsets: Sequence[tuple[str, ...]], tasks: list[str]) -> _Rows:
    sizes = sorted({*map(len, subsets)})
    words = [f"{size} task{'s' if size > 1 else ''}" for size in sizes]
    return _Rows("size", sizes, sizes, words, tasks)


def _names(subsets: Sequence[tuple[str, ...]], words: Mapping[str, str], between: str) -> list[str]:
    """Name subsets by their tasks, or by those that are left out where these are fewer."""
    found = []
    for subset in subsets:
        others = [words[task] for task in words if task not in subset]
        if not others and len(words) > 1:
            found.append("all")
        elif len(others) < len(subset):
            found.append(f"all but {between.join(others)}")
        else:
            found.append(between.join(words[task] for task in subset))
    return found


def _cells(panel: frames.Panel, grid: pd.DataFrame, rows: _Rows, tasks: list[str]) -> pd.DataFrame:
    """Return normalised accuracy in percent: the base's, and a row for each key."""
    scores = frames.reference_scores(grid, "test", panel.model, panel.mode).reindex(tasks)
    zero = (scores["zero-shot"] / scores["experts"]).to_frame(_ZERO).T
    cells = panel.rows.pivot_table(
        index=rows.by, columns="task", values="normalized_accuracy", aggfunc="mean"
    )
    return 100 * pd.concat([zero, cells.reindex(index=rows.keys, columns=tasks)])


def _is_expert(cells: pd.DataFrame, rows: _Rows) -> np.ndarray:
    """Return where a merge of one task is as good as its expert to the last image."""
    alone = np.array([0, *rows.sizes]) == 1
    return np.asarray((cells == 100).to_numpy() & alone[:, None])


def _shown(cells: pd.DataFrame, rows: _Rows) -> pd.DataFrame:
    """Return the cells without those that say nothing, and the mean of each row that has several."""
    shown = cells.mask(_is_expert(cells, rows))
    return shown.assign(**{_MEAN: cells.mean(axis=1).where(shown.count(axis=1) > 1)})


def _scales(scores: pd.DataFrame, rows: _Rows) -> list[str]:
    """Print the coefficients of each row, or from which to which they go."""
    ends = scores.groupby(rows.by)["scale"].agg(["min", "max"]).reindex(rows.keys)
    return [
        "" if np.isnan(low) else f"{low:g}" if low == high else f"{low:g}–{high:g}"
        for low, high in ends.to_numpy(float)
    ]


def _finish(axes: Axes, rows: _Rows, scales: Sequence[str], cell: float, wide: float) -> None:
    """Add the column of coefficients, as wide as so many cells, names of columns, and gaps."""
    tasks = len(rows.heads)
    middle = tasks + 1 + wide / 2
    for row, text in enumerate(scales, start=1):
        _say(axes, middle, row, text)
    axes.set_xlim(0, tasks + 1 + wide)
    places = [*np.arange(tasks + 1) + 0.5, middle]
    words = [*map(style.label, rows.heads), _MEAN, "chosen λ"]
    style.name_columns(axes, places, words, cell, tilt=90)
    axes.axvline(tasks, color="white", linewidth=2.5)
    for row, (before, size) in enumerate(pairwise([0, *rows.sizes]), start=1):
        if row == 1 or (size != before and rows.by == "subset"):
            axes.axhline(row, color="white", linewidth=2.5)


def _say(axes: Axes, x: float, row: int, text: str) -> None:
    words = axes.text(x, row + 0.5, text, ha="center", va="center", fontsize=style.SMALLEST)
    words.set_in_layout(False)
