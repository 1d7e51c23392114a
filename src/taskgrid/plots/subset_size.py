"""Normalised accuracy against the number of merged tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Normalised accuracy against subset size",
    category="Task addition",
    tables=("grid", "selected"),
    caption="""
    Normalised accuracy on the **test** split against the number of merged tasks, every subset
    at its own λ, chosen on **validation** (first maximum of mean normalised accuracy).
    Normalised: each task's accuracy divided by the accuracy of its own expert, then averaged
    over the tasks of the subset. Each mark is one subset (mean over seeds), hollow where the
    chosen λ is the first or the last of its sweep; thin bars: 95 % intervals by a bootstrap over
    images, with several seeds their span, for up to 100 subsets. The line joins the means over
    all subsets of a size. Dashed: the experts (100 %); dotted: the pre-trained model
    (zero-shot), mean over the tasks.
    """,
)

_MANY_POINTS = 100
_SPREAD = 0.56
"""How much of the way from one size to the next the marks of a size take."""


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw test normalised accuracy against subset size: a panel per model and mode."""
    chosen = frames.chosen_points(tables["selected"])
    if chosen.empty:
        return sheet.message("no scaling coefficient was chosen yet")
    titles = frames.method_titles(chosen)
    looks = style.looks(list(titles.values()))
    cut = frames.panels(chosen)
    columns = sheet.across(len(cut), least=1.6)
    rows = -(-len(cut) // columns)
    figure = sheet.figure(2.2 * rows + 0.2, _handles(looks, bool(chosen["at_edge"].any())))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    lane = _SPREAD / len(titles)
    for panel, each in zip(cut, axes.ravel(), strict=False):
        _levels(each, tables["grid"], panel)
        for place, ((method, options), title) in enumerate(titles.items()):
            mine = (panel.rows["method"] == method) & (panel.rows["options"] == options)
            offset = (place - (len(titles) - 1) / 2) * lane
            _series(each, panel.rows[mine], title, offset, 0.75 * lane, looks[title])
        each.set_title(style.wrapped(panel.title, sheet.inches / columns - 0.4))
        each.grid(visible=False, axis="x")
    sizes = sorted(chosen["size"].astype(int).unique())
    axes[0, 0].set_xticks(sizes[:: -(-len(sizes) // 10)])
    axes[0, 0].set_xlim(sizes[0] - 0.5, sizes[-1] + 0.5)
    style.hide_unused(list(axes.ravel()), len(cut))
    drawn = list(axes.ravel()[: len(cut)])
    style.label_lowest(drawn, columns, "tasks merged", sheet.inches / columns)
    figure.supylabel("normalised accuracy on test [%]", fontsize=style.TEXT)
    return figure


def _series(
    axes: Axes, rows: pd.DataFrame, title: str, offset: float, width: float, look: style.Look
) -> None:
    points = rows.groupby(["size", "subset"], sort=True, as_index=False).agg(
        mean=("test_normalized", "mean"),
        low=("test_normalized_low", "min"),
        high=("test_normalized_high", "max"),
        at_edge=("at_edge", "any"),
    )
    rank = points.groupby("size").cumcount()
    count = points.groupby("size")["subset"].transform("count")
    # A fixed low-discrepancy walk instead of random jitter: the same figure every time.
    walk = ((rank + 0.5) * 0.618034 % 1 - 0.5).where(count > 1, 0.0)
    x = points["size"].astype(float) + offset + walk * width
    if len(points) <= _MANY_POINTS:
        ends = (100 * points["low"], 100 * points["high"])
        axes.vlines(x, *ends, color=look.colour, alpha=0.35, linewidth=0.6, zorder=2)
    for at_edge, hollow in ((False, {}), (True, style.HOLLOW | {"markeredgewidth": 0.6})):
        own = points["at_edge"].astype(bool) == at_edge
        axes.plot(
            x[own],
            100 * points["mean"][own],
            label=f"{title}: {'at the edge' if at_edge else 'subsets'}",
            zorder=3,
            **look.marks(markersize=2.6, alpha=0.8, **hollow),
        )
    means = 100 * points.groupby("size")["mean"].mean()
    line = look.line(marker="_", markersize=6, markeredgewidth=1.2)
    axes.plot(means.index.astype(float) + offset, means, label=f"{title}: mean", zorder=4, **line)


def _levels(axes: Axes, grid: pd.DataFrame, panel: frames.Panel) -> None:
    scores = frames.reference_scores(grid, "test", panel.model, panel.mode)
    scores = scores[scores.index.isin(frames.tasks_of(panel.rows["subset"]))]
    zero = float((scores["zero-shot"] / scores["experts"]).mean())
    levels = {"experts": 1.0, "zero-shot": zero}
    for name, level in levels.items():
        if np.isfinite(level):
            axes.axhline(
                100 * level,
                color=style.GREY,
                linewidth=1.0,
                linestyle=style.REFERENCE[name],
                label=name,
                zorder=1,
            )


def _handles(looks: dict[str, style.Look], at_edge: bool) -> list[Line2D]:
    means = [Line2D([], [], label=title, **look.line()) for title, look in looks.items()]
    marks: dict[str, Any] = {"color": style.GREY, "linestyle": "", "marker": "o", "markersize": 3.0}
    edge = [Line2D([], [], label="λ at the edge of its sweep", **{**marks, **style.HOLLOW})]
    subset = Line2D([], [], label="a subset", **marks)
    return [*means, subset, *(edge if at_edge else []), *style.level_handles()]
