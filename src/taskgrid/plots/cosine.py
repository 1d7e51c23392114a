"""How much task vectors point the same way."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from taskgrid.plots import frames, matrices, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Cosine similarity of task vectors",
    category="Task vectors",
    tables=("conflicts",),
    caption="""
    Cosine similarity between task vectors (the weights of an expert minus those of the pre-
    trained model, all layers of the visual tower as one vector), mean over seeds; each pair
    once. Zero: they have nothing to do with each other. Weights only: no data split is involved.
    """,
)

_WIDEST = 0.7
"""Inches that a cell takes at most."""


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw half a matrix of cosines: a panel per model and mode."""
    table = tables["conflicts"]
    others = table[(table["layer"] == "all") & (table["task_a"] != table["task_b"])]
    if others["cosine"].notna().sum() == 0:
        return sheet.message("fewer than two task vectors: there is no pair to compare")
    cut = frames.panels(others)
    tasks = sheet.ordered([*others["task_a"], *others["task_b"]])
    names = matrices.width_of_names(tasks)
    columns = sheet.across(len(cut), least=min(names + 0.3 * (len(tasks) - 1), sheet.inches))
    rows = -(-len(cut) // columns)
    cell = min((sheet.inches / columns - names - 0.1) / (len(tasks) - 1), _WIDEST)
    tall = max(matrices.ROW, min(0.3 * cell + 0.08, 0.25))
    widest = names - 0.15
    below = 0.4 if widest + 0.06 <= cell else 0.3 + 0.75 * widest
    figure = sheet.figure(rows * (tall * (len(tasks) - 1) + below) + 0.35)
    axes = figure.subplots(rows, columns, squeeze=False)
    most = others["cosine"].abs().max()
    limit = max(0.1, np.ceil(most * 20) / 20)
    # Two digits of the largest.
    decimals = int(np.clip(1 - np.floor(np.log10(max(most, 1e-4))), 2, 4))
    for panel, each in zip(cut, axes.ravel(), strict=False):
        cells = _half(panel.rows, tasks)
        mesh = matrices.draw_cells(
            each, cells, (-limit, limit), "RdBu_r", cell, decimals=range(decimals, 1, -1)
        )
        each.set_aspect(tall / cell)
        matrices.name_columns(each, list(cells.columns), cell)
        matrices.name_rows(each, list(cells.index))
        each.set_title(style.wrapped(panel.title, sheet.inches / columns - names))
    style.hide_unused(list(axes.ravel()), len(cut))
    matrices.colour_bar(figure, mesh, list(axes.ravel()[: len(cut)]), "cosine similarity")
    return figure


def _half(rows: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """Return the cosines below the diagonal, rows and columns in the order of the tasks."""
    both = pd.concat([rows, rows.rename(columns={"task_a": "task_b", "task_b": "task_a"})])
    cells = both.pivot_table(index="task_a", columns="task_b", values="cosine", aggfunc="mean")
    return matrices.half(cells.reindex(index=tasks, columns=tasks))
