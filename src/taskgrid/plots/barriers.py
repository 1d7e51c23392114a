"""Paths between experts: the errors along each, and how high its barrier is."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import dumbbells, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Barriers between experts",
    category="Paths between experts",
    tables=("barriers/paths", "barriers/pairs"),
    caption="""
    What lies between the experts of two tasks. Paths: along the path from the first (t = 0) to the second
    (t = 1), how many more images of both tasks are wrong on **validation** than on the straight line
    between the scores of the two experts; thin lines are pairs, the thick one is their mean. Barriers: the
    same on the **test** split, for each pair at the t that is worst on validation, with 95 % intervals by a
    bootstrap in which experts and model see the same images; below zero the path is better than the line.
    Straight paths are task arithmetic's, bent ones those that Bezier curves were trained for. With several
    seeds the mean, and the span of their intervals. Of many pairs the highest barriers.
    """,
)


_MOST = 40
"""Pairs that the page has room for."""


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw paths and barriers, the highest on top: side by side for each model and mode, or below."""
    paths, pairs = tables["barriers/paths"], tables["barriers/pairs"]
    if pairs.empty:
        return sheet.message("no path between two experts was measured yet")
    titles = frames.method_titles(pairs)
    looks = style.looks(list(titles.values()))
    cut = frames.panels(pairs)
    means = pairs.groupby("subset")["barrier"].mean().sort_values(ascending=False, kind="stable")
    order = [str(subset) for subset in means.index[: _MOST // len(cut)]]
    names = [" + ".join(map(style.label, sheet.ordered(pair.split("+")))) for pair in order]
    tall = max(1.2, dumbbells.height(len(order), len(titles)))
    handles = [Line2D([], [], label=title, **look.line()) for title, look in looks.items()]
    if sheet.narrow:
        figure = sheet.figure(len(cut) * (tall + 1.9) + 0.3, handles)
        axes = figure.subplots(2 * len(cut), 1, height_ratios=[1.2, tall] * len(cut)).reshape(-1, 2)
    else:
        figure = sheet.figure(len(cut) * (tall + 0.25) + 0.3, handles)
        axes = figure.subplots(len(cut), 2, squeeze=False, sharex="col", width_ratios=(4, 3))
    for panel, along, (left, right) in zip(cut, frames.panels(paths), axes, strict=True):
        left.set_title(panel.title, loc="left")
        left.axhline(0, color=style.GREY, linewidth=0.8, zorder=1)
        left.set_ylabel("errors above\nthe line [points]")
        for own, _, title in dumbbells.lanes(along.rows, titles):
            _paths(left, own, looks[title], title)
        dumbbells.frame(right, names, named=True, ticks=4)
        right.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
        for own, offset, title in dumbbells.lanes(panel.rows, titles):
            _barriers(right, own, order, offset, looks[title], title)
        if sheet.narrow or left in axes[-1]:
            left.set_xlabel("t, from the first expert to the second")
            right.set_xlabel("barrier on test [points]")
    return figure


def _paths(axes: Axes, rows: pd.DataFrame, look: style.Look, title: str) -> None:
    means = 100 * rows.groupby(["subset", "t"])["excess"].mean().unstack("subset")
    axes.plot(means.index, means, color=look.colour, linewidth=0.5, alpha=0.45, zorder=2)
    axes.plot(means.index, means.mean(axis=1), label=title, zorder=3, **look.line())


def _barriers(
    axes: Axes, rows: pd.DataFrame, order: list[str], offset: float, look: style.Look, title: str
) -> None:
    found = rows.groupby("subset").agg(
        barrier=("barrier", "mean"), low=("low", "min"), high=("high", "max")
    )
    found = found.reindex([subset for subset in order if subset in found.index])
    y = [order.index(str(subset)) + offset for subset in found.index]
    dumbbells.draw_interval(axes, y, found["low"], found["high"], look)
    axes.plot(100 * found["barrier"], y, label=title, zorder=3, **look.marks())
