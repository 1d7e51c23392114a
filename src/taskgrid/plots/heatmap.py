"""What every subset does to each of its tasks."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskgrid.plots import frames, matrices, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Subset by task",
    category="Task addition",
    tables=("grid", "selected"),
    caption="""
    Normalised accuracy on the **test** split of each task (columns) in each merge (rows) at the
    λ chosen on **validation** for that merge (first maximum of mean normalised accuracy), mean
    over seeds. A row is one subset of tasks: its members are the coloured cells, blank cells
    are tasks outside it; rows are sorted by the number of tasks, then by name. The last column
    is the mean of the row. Where the subsets are too many to print one by one, a row stands for
    all subsets of one size and a cell is the mean over those that contain the task.
    """,
)

MOST_ROWS = 80
"""More rows than this, all panels of a column together, are not read one by one."""
_MEAN = "mean"


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw the subset by task matrix: a panel per method, model and mode."""
    scores = frames.chosen_scores(tables["grid"], tables["selected"], "test")
    if scores.empty:
        return style.message("no scaling coefficient was chosen yet")
    cut = frames.panels(scores, ("model", "mode", "method", "options"))
    tasks = frames.task_order(scores["task"])
    methods = len(frames.method_titles(scores))
    narrow = len(tasks) <= matrices.MANY_COLUMNS
    room = 0.42 if narrow else 0.34
    wide = max(room * (len(tasks) + 1), 1.6) + 0.55
    columns = style.columns_for(len(cut), methods, most=2 if 2 * wide <= style.PAGE else 1)
    lines = -(-len(cut) // columns)
    by_size = lines * max(panel.rows["subset"].nunique() for panel in cut) > MOST_ROWS
    cells = [
        _by_size(panel.rows, tasks) if by_size else _by_subset(panel.rows, tasks) for panel in cut
    ]
    limits = matrices.score_range(np.concatenate([each.to_numpy().ravel() for each in cells]))
    tall = max(max(len(each) for each in cells) * (0.2 if by_size else 0.165), 1.2)
    figure = style.new_figure(columns * wide + 0.9, lines * (tall + 1.0))
    axes = figure.subplots(lines, columns, squeeze=False)
    for index, (panel, each, values) in enumerate(zip(cut, axes.ravel(), cells, strict=False)):
        decimals = 1 if narrow else 0
        mesh = matrices.draw_cells(each, values, limits, "viridis", decimals, gaps=0.5)
        matrices.name_columns(each, list(values.columns), room)
        each.axvline(len(tasks), color="white", linewidth=3)
        _name_rows(each, values, named=index % columns == 0)
        each.set_title(panel.title)
    style.hide_unused(list(axes.ravel()), len(cut))
    drawn = list(axes.ravel()[: len(cut)])
    matrices.colour_bar(figure, mesh, drawn, "normalised accuracy\non test [%]")
    return figure


def _by_subset(rows: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    cells = rows.pivot_table(
        index=["size", "subset"], columns="task", values="normalized_accuracy", aggfunc="mean"
    )
    cells = 100 * cells.reindex(index=list(frames.subset_order(rows)), columns=tasks)
    return cells.assign(**{_MEAN: cells.mean(axis=1)})


def _by_size(rows: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    cells = rows.pivot_table(
        index="size", columns="task", values="normalized_accuracy", aggfunc="mean"
    )
    cells = 100 * cells.reindex(columns=tasks)
    return cells.assign(**{_MEAN: cells.mean(axis=1)})


def _name_rows(axes: Axes, values: pd.DataFrame, *, named: bool) -> None:
    sizes = [int(key[0] if isinstance(key, tuple) else key) for key in values.index]
    top, places, words = 0, [], []
    for size, group in groupby(sizes):
        height = len(list(group))
        places.append(top + height / 2)
        words.append(f"{size} task" + ("s" if size > 1 else ""))
        top += height
        if top < len(sizes) and len(set(sizes)) < len(sizes):
            axes.axhline(top, color="white", linewidth=3)
    axes.set_yticks(places, words if named else [])
