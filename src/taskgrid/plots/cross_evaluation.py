"""What fine-tuning on one task does to every other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from taskgrid.plots import frames, matrices, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Every expert on every task",
    category="Experts",
    tables=("grid",),
    caption="""
    Accuracy on the **test** split of each expert (rows) on each task (columns), with that
    task's own classes and text head; mean over seeds. The outlined diagonal is each expert on
    its own task; the first row is the pre-trained model (zero-shot). Nothing was chosen here:
    experts are the task vectors at λ = 1.
    """,
)

_ZERO = "zero-shot"


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw the expert by task matrix: a panel per model and mode."""
    rows = tables["grid"]
    rows = rows[rows["split"] == "test"]
    experts = rows[rows["method"] == "expert"]
    if experts.empty:
        return style.message("no expert was evaluated on test yet")
    cut = frames.panels(experts)
    tasks = frames.task_order(experts["task"])
    cells = [_matrix(panel, rows, tasks) for panel in cut]
    limits = matrices.score_range(np.concatenate([each.to_numpy().ravel() for each in cells]))
    room = 0.42 if len(tasks) <= matrices.MANY_COLUMNS else 0.34
    columns = min(len(cut), 2 if len(tasks) <= matrices.MANY_COLUMNS else 1)
    lines = -(-len(cut) // columns)
    tall = max(max(len(each) for each in cells) * 0.26, 1.2)
    figure = style.new_figure(
        columns * (max(room * len(tasks), 1.8) + 1.0) + 0.8, lines * (tall + 1.0)
    )
    axes = figure.subplots(lines, columns, squeeze=False)
    for panel, each, values in zip(cut, axes.ravel(), cells, strict=False):
        decimals = 0 if len(tasks) > matrices.MANY_COLUMNS else 1
        mesh = matrices.draw_cells(each, values, limits, "viridis", decimals)
        matrices.name_columns(each, tasks, room)
        matrices.name_rows(each, list(values.index))
        each.set_title(panel.title)
        for place, name in enumerate(values.index):
            if name in tasks:
                corner = (tasks.index(name), place)
                outline = Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.0)
                outline.set(clip_on=False, zorder=3)
                each.add_patch(outline)
        if values.index[0] == _ZERO:
            each.axhline(1, color="white", linewidth=3, zorder=2)
        each.set_ylabel("expert")
    style.hide_unused(list(axes.ravel()), len(cut))
    drawn = list(axes.ravel()[: len(cut)])
    matrices.colour_bar(figure, mesh, drawn, "accuracy on test [%]")
    return figure


def _matrix(panel: frames.Panel, rows: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    cells = panel.rows.pivot_table(
        index="subset", columns="task", values="accuracy", aggfunc="mean"
    )
    cells = cells.reindex(columns=tasks).sort_index()
    zero = rows[(rows["method"] == "zeroshot") & (rows["model"] == panel.model)]
    if not zero.empty:
        first = zero.groupby("task")["accuracy"].mean().reindex(tasks).to_frame(_ZERO).T
        cells = pd.concat([first, cells])
    return 100 * cells
