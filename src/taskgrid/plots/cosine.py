"""How much task vectors point the same way."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from taskgrid.plots import frames, matrices, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Cosine similarity of task vectors",
    category="Task vectors",
    tables=("conflicts",),
    caption="""
    Cosine similarity between task vectors (the weights of an expert minus those of the pre-
    trained model, all layers of the visual tower as one vector), mean over seeds. The diagonal,
    1 by definition, is left blank so that the colours show the rest. Weights only: no data
    split is involved.
    """,
)


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw the matrix of cosines: a panel per model and mode."""
    table = tables["conflicts"]
    others = table[(table["layer"] == "all") & (table["task_a"] != table["task_b"])]
    if others["cosine"].notna().sum() == 0:
        return style.message("fewer than two task vectors: there is no pair to compare")
    cut = frames.panels(others)
    matrix = {panel.title: _matrix(panel.rows) for panel in cut}
    tasks = max(len(cells) for cells in matrix.values())
    cell = 0.42 if tasks <= matrices.MANY_COLUMNS else 0.32
    columns = min(len(cut), 2)
    rows = -(-len(cut) // columns)
    side = max(cell * tasks, 1.8)
    figure = style.new_figure(columns * (side + 1.1) + 1.0, rows * (side + 0.9))
    axes = figure.subplots(rows, columns, squeeze=False)
    limit = max(0.1, np.ceil(others["cosine"].abs().max() * 20) / 20)
    for panel, each in zip(cut, axes.ravel(), strict=False):
        cells = matrix[panel.title]
        mesh = matrices.draw_cells(each, cells, (-limit, limit), "RdBu_r", 2)
        each.set_aspect("equal")
        matrices.name_columns(each, list(cells.columns), side / len(cells))
        matrices.name_rows(each, list(cells.index))
        each.set_title(panel.title)
    style.hide_unused(list(axes.ravel()), len(cut))
    matrices.colour_bar(figure, mesh, list(axes.ravel()[: len(cut)]), "cosine similarity")
    return figure


def _matrix(rows: pd.DataFrame) -> pd.DataFrame:
    tasks = sorted(set(rows["task_a"]) | set(rows["task_b"]))
    both = pd.concat([rows, rows.rename(columns={"task_a": "task_b", "task_b": "task_a"})])
    cells = both.pivot_table(index="task_a", columns="task_b", values="cosine", aggfunc="mean")
    return cells.reindex(index=tasks, columns=tasks)
