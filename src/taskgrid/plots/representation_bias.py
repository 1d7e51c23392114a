"""How far the features of merges are from those of the experts."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import dumbbells, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Representation bias",
    category="Inside the network",
    tables=("features/bias",),
    caption="""
    Mean distance |z − z'| of the features z of a network from those z' of each task's own
    expert, per feature and image, on images of the training split. Ticks: a task, mean over
    seeds. Dots: mean over tasks. Open: what is left behind what a method makes of features
    (surgery). Zero-shot is the base. Merges are those of the study, at the point that was
    chosen for each on **validation**.
    """,
)

_ZEROSHOT = "zero-shot"
_BASE = style.Look((0.4, 0.4, 0.4), "o", "solid")


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw a line per method, the base on top: a panel per model and mode."""
    rows = tables["features/bias"]
    rows = rows[rows["chosen"].astype(bool) & (rows["method"] != "expert")]
    if rows.empty:
        return sheet.message("no network was looked at yet")
    titles = frames.merge_titles(rows)
    lines = {("zeroshot", "{}"): _ZEROSHOT, **titles}
    looks = dict(
        zip(lines.values(), [_BASE, *style.looks([*titles.values()]).values()], strict=True)
    )
    cut = frames.panels(rows)
    columns = sheet.across(len(cut), least=3.0)
    down = -(-len(cut) // columns)
    tall = dumbbells.height(len(lines), 1) + 0.25
    figure = sheet.figure(down * tall + 0.3, _handles(bool(rows["l1_left"].notna().any())))
    axes = figure.subplots(down, columns, squeeze=False, sharex=True)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        dumbbells.frame(each, [*lines.values()], named=index % columns == 0)
        for place, (named, title) in enumerate(lines.items()):
            method, options = named
            own = panel.rows[(panel.rows["method"] == method) & (panel.rows["options"] == options)]
            _draw_line(each, own, place, looks[title])
        each.set_title(panel.title)
        each.set_xlim(left=0)
    style.hide_unused(list(axes.ravel()), len(cut))
    drawn = list(axes.ravel()[: len(cut)])
    words = "distance from the expert's features"
    style.label_lowest(drawn, columns, words, sheet.inches / columns - 0.3)
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, place: int, look: style.Look) -> None:
    if rows.empty:
        return
    tasks = rows.groupby("task")[["l1", "l1_left"]].mean()
    y = [float(place)] * len(tasks)
    axes.plot(tasks["l1"], y, **look.marks(marker="|", markersize=5, alpha=0.6))
    big = look.marks(marker="o", markersize=4.5)
    axes.plot([tasks["l1"].mean()], y[:1], zorder=4, **big)
    if tasks["l1_left"].notna().any():
        axes.plot([tasks["l1_left"].mean()], y[:1], zorder=4, **{**big, **style.HOLLOW})


def _handles(mended: bool) -> list[Line2D]:
    mark: dict[str, Any] = {"linestyle": "", "color": style.GREY}
    big = {**mark, "marker": "o", "markersize": 4.5}
    found = [
        Line2D([], [], marker="|", markersize=5, label="a task", **mark),
        Line2D([], [], label="mean over tasks", **big),
    ]
    return [*found, Line2D([], [], label="left", **{**big, **style.HOLLOW})] if mended else found
