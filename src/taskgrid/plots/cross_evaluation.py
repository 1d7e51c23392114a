"""What fine-tuning on one task does to every other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from taskgrid.plots import frames, matrices, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Every expert on every task",
    category="Experts",
    tables=("grid",),
    caption="""
    Accuracy on the **test** split of each expert (rows) on each task (columns), with that
    task's own classes and text head, mean over seeds; and by how many points it differs from
    the pre-trained model's (zero-shot), which is the first row. The outlined diagonal is each
    expert on its own task; the colours of changes end where those of the other tasks end.
    Nothing was chosen here: experts are the task vectors at λ = 1.
    """,
)

_ZERO = "zero-shot"
_WORDS = ("accuracy on test [%]", "change from zero-shot [points]")


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw the expert by task matrices, level and change: a pair per model and mode."""
    rows = tables["grid"]
    rows = rows[rows["split"] == "test"]
    experts = rows[rows["method"] == "expert"]
    if experts.empty:
        return sheet.message("no expert was evaluated on test yet")
    cut = frames.panels(experts)
    tasks = sheet.ordered(experts["task"])
    levels = [_matrix(panel, rows, tasks) for panel in cut]
    changes = [each.drop(index=_ZERO) - each.loc[_ZERO] for each in levels]
    stacked = sheet.narrow and len(cut) == 1
    lines, columns = (2, 1) if stacked else (len(cut), 2)
    tall = (max(map(len, levels)) + 1) * 0.155 + 0.55
    figure = sheet.figure(lines * tall + (0.9 if stacked else 0.5))
    axes = figure.subplots(lines, columns, squeeze=False).reshape(len(cut), 2)
    names = matrices.width_of_names(list(levels[0].index)) + 0.15
    cell = ((sheet.inches - names) / columns - 0.1) / len(tasks)
    low, high = matrices.score_range(np.concatenate([each.to_numpy().ravel() for each in levels]))
    most = max(5.0, max(map(_furthest, changes)))
    for panel, level, change, (left, right) in zip(cut, levels, changes, axes, strict=True):
        # Side by side rows stand beside rows.
        change = change if stacked else change.reindex(level.index)
        meshes = [
            matrices.draw_cells(left, level, (low, high), "viridis", cell),
            matrices.draw_cells(right, change, (-most, most), "RdBu_r", cell, signed=True),
        ]
        for each, cells, words in zip((left, right), (level, change), _WORDS, strict=True):
            matrices.name_columns(each, tasks, cell)
            matrices.name_rows(each, list(cells.index) if each is left or stacked else [])
            title = "\n".join(filter(None, (panel.title, words)))
            each.set_title(style.wrapped(title, cell * len(tasks)))
            _outline(each, cells, tasks)
            each.set_ylabel("expert" if each is left or stacked else "")
            each.set_xlabel("evaluated on" if panel is cut[-1] else "")
        left.axhline(1, color="white", linewidth=2.5, zorder=2)
    for mesh, column in zip(meshes, axes.T, strict=True):
        matrices.colour_bar(figure, mesh, list(column))
    return figure


def _matrix(panel: frames.Panel, rows: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """Return accuracy in percent: the base's, where it was measured, and a row for each expert."""
    cells = panel.rows.pivot_table(
        index="subset", columns="task", values="accuracy", aggfunc="mean"
    )
    zero = rows[(rows["method"] == "zeroshot") & (rows["model"] == panel.model)]
    first = zero.groupby("task")["accuracy"].mean().reindex(tasks).to_frame(_ZERO).T
    own = [task for task in tasks if task in cells.index]
    return 100 * pd.concat([first, cells.reindex(index=own, columns=tasks)])


def _furthest(change: pd.DataFrame) -> float:
    """Return how far experts go on tasks of others, up to the next five points."""
    others = change.apply(lambda row: row.drop(row.name), axis=1) if len(change) else change
    furthest = np.nanmax(np.abs(others.to_numpy(float)), initial=0.0)
    return float(np.ceil(furthest / 5) * 5)


def _outline(axes: Axes, cells: pd.DataFrame, tasks: list[str]) -> None:
    for place, name in enumerate(cells.index):
        if name in tasks:
            outline = Rectangle((tasks.index(name), place), 1, 1, fill=False, edgecolor="black")
            outline.set(clip_on=False, zorder=3, linewidth=0.9)
            axes.add_patch(outline)
