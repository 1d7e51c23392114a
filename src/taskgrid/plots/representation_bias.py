"""How far the features of merges are from those of the experts."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import dumbbells, frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Representation bias",
    category="Inside the network",
    tables=("features/bias",),
    caption="""
    Mean distance |z − z'| of the features z of a network from those z' of each task's own
    expert, per feature and image, on images of the training split. Small: a task, mean over
    seeds. Large: mean over tasks. Open: what is left behind what a method makes of features
    (surgery). Zero-shot is the base. Merges are those of the study, at the point that was
    chosen for each on **validation**.
    """,
)

_ZEROSHOT = "zero-shot"


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw a line per method, the base on top: a panel per model and mode."""
    rows = tables["features/bias"]
    rows = rows[rows["chosen"].astype(bool) & (rows["method"] != "expert")]
    if rows.empty:
        return style.message("no network was looked at yet")
    titles = frames.merge_titles(rows)
    lines = {("zeroshot", "{}"): _ZEROSHOT, **titles}
    colours = {_ZEROSHOT: (0.4, 0.4, 0.4), **style.category_colours(list(titles.values()))}
    cut = frames.panels(rows, [key for key in ("study", "model", "mode") if key in rows])
    columns = style.columns_for(len(cut), most=2)
    down = -(-len(cut) // columns)
    tall = 0.24 * len(lines) + 0.75
    figure = style.new_figure(4.8 if columns == 1 else style.PAGE, down * tall + 0.4)
    axes = figure.subplots(down, columns, squeeze=False, sharex=True)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        dumbbells.frame(each, [*lines.values()], named=index % columns == 0)
        for place, (named, title) in enumerate(lines.items()):
            method, options = named
            own = panel.rows[(panel.rows["method"] == method) & (panel.rows["options"] == options)]
            _draw_line(each, own, place, colours[title])
        each.set_title(panel.title)
        each.set_xlim(left=0)
        if index + columns >= len(cut):
            each.set_xlabel("distance from the expert's features")
            each.tick_params(labelbottom=True)
    style.hide_unused(list(axes.ravel()), len(cut))
    style.legend_below(figure, _handles(bool(rows["l1_left"].notna().any())))
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, place: int, colour: style.Colour) -> None:
    if rows.empty:
        return
    tasks = rows.groupby("task")[["l1", "l1_left"]].mean()
    y = [float(place)] * len(tasks)
    axes.plot(tasks["l1"], y, linestyle="", marker="o", markersize=2.5, color=colour, alpha=0.45)
    big: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5.5, "color": colour}
    axes.plot([tasks["l1"].mean()], y[:1], zorder=4, **big)
    if tasks["l1_left"].notna().any():
        axes.plot([tasks["l1_left"].mean()], y[:1], zorder=4, **{**big, **dumbbells.OPEN})


def _handles(mended: bool) -> list[Line2D]:
    mark: dict[str, Any] = {"linestyle": "", "marker": "o", "color": "0.25"}
    found = [
        Line2D([], [], markersize=2.5, alpha=0.6, label="a task", **mark),
        Line2D([], [], markersize=5.5, label="mean over tasks", **mark),
    ]
    if mended:
        found.append(Line2D([], [], markersize=5.5, label="left", **{**mark, **dumbbells.OPEN}))
    return found
