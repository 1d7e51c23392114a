"""Paths between experts: the errors along each, and how high its barrier is."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import dumbbells, frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Barriers between experts",
    category="Paths between experts",
    tables=("barriers/paths", "barriers/pairs"),
    caption="""
    What lies between the experts of two tasks. Left: along the path from the first (t = 0) to the second
    (t = 1), how many more images of both tasks are wrong on **validation** than on the straight line
    between the scores of the two experts; thin lines are pairs, the thick one is their mean. Right: the
    same on the **test** split, for each pair at the t that is worst on validation, with 95 % intervals by a
    bootstrap in which experts and model see the same images; below zero the path is better than the line.
    Straight paths are task arithmetic's, bent ones those that Bezier curves were trained for. With several
    seeds the mean, and the span of their intervals.
    """,
)


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw paths and barriers, the highest on top: a row per model and mode."""
    paths, pairs = tables["barriers/paths"], tables["barriers/pairs"]
    if pairs.empty:
        return style.message("no path between two experts was measured yet")
    titles = frames.method_titles(pairs)
    colours = style.category_colours(list(titles.values()))
    by = [key for key in ("study", "model", "mode") if key in pairs]
    cut = frames.panels(pairs, by)
    order = dumbbells.largest_first(pairs, "subset", "barrier")
    tall = max(1.6, len(order) * max(0.24, 0.11 * len(titles) + 0.08)) + 0.6
    figure = style.new_figure(style.PAGE, len(cut) * tall + 0.5)
    axes = figure.subplots(len(cut), 2, squeeze=False, sharex="col", width_ratios=(4, 3))
    names = [" + ".join(map(style.label, subset.split("+"))) for subset in order]
    for panel, along, (left, right) in zip(cut, frames.panels(paths, by), axes, strict=True):
        left.set_title(panel.title, loc="left")
        left.axhline(0, color="0.25", linewidth=0.8, zorder=1)
        left.set_ylabel("errors above\nthe line [points]")
        for own, _, title in dumbbells.lanes(along.rows, titles):
            _paths(left, own, colours[title], title)
        dumbbells.frame(right, names, named=True, ticks=4)
        right.axvline(0, color="0.25", linewidth=0.8, zorder=1)
        for own, offset, title in dumbbells.lanes(panel.rows, titles):
            _barriers(right, own, order, offset, colours[title], title)
    axes[-1][0].set_xlabel("t, from the first expert to the second")
    axes[-1][1].set_xlabel("barrier on test [points]")
    marks: dict[str, Any] = {"marker": "o", "markersize": dumbbells.SIZE}
    handles = [Line2D([], [], color=one, label=title, **marks) for title, one in colours.items()]
    style.legend_below(figure, handles)
    return figure


def _paths(axes: Axes, rows: pd.DataFrame, colour: style.Colour, title: str) -> None:
    means = 100 * rows.groupby(["subset", "t"])["excess"].mean().unstack("subset")
    axes.plot(means.index, means, color=colour, linewidth=0.7, alpha=0.45, zorder=2)
    axes.plot(means.index, means.mean(axis=1), color=colour, label=title, zorder=3)


def _barriers(
    axes: Axes,
    rows: pd.DataFrame,
    order: list[str],
    offset: float,
    colour: style.Colour,
    title: str,
) -> None:
    found = rows.groupby("subset").agg(
        barrier=("barrier", "mean"), low=("low", "min"), high=("high", "max")
    )
    found = found.reindex([subset for subset in order if subset in found.index])
    y = [order.index(str(subset)) + offset for subset in found.index]
    dumbbells.draw_interval(axes, y, found["low"], found["high"], colour)
    marks: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": dumbbells.SIZE}
    axes.plot(100 * found["barrier"], y, color=colour, label=title, zorder=3, **marks)
