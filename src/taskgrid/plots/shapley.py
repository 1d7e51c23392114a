"""What each task contributes to the merge of all: Shapley values with their intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from taskgrid.plots import frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Shapley values of tasks",
    category="Contributions of tasks",
    tables=("shapley/values",),
    caption="""
    What each task vector contributes to the merge of all tasks: its Shapley value, the gain over the
    pre-trained model in the mean score on the **test** split when the task joins, averaged over all
    orders in which tasks can join. Every subset is merged at its own λ, chosen on **validation**. The
    values of a method add up to the gain of its merge of all tasks. Bars: 95 % intervals by
    a bootstrap over images, in which all subsets see the same images; with several seeds the mean, and
    the span of their intervals. Open: the gain of the task's own merge alone, as if it were the first
    to join; what lies between the two is lost, or won, in company.
    """,
)

_SIZE = 4.0
_OPEN: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.8}


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw every task's value, the largest on top: a panel per model and mode."""
    rows = tables["shapley/values"]
    if rows.empty:
        return style.message("no Shapley value was computed yet")
    titles = frames.method_titles(rows)
    colours = style.category_colours(list(titles.values()))
    cut = frames.panels(rows, [key for key in ("study", "model", "mode") if key in rows])
    order = [str(task) for task in rows.groupby("task")["value"].mean().sort_values().index[::-1]]
    columns = style.columns_for(len(cut))
    lines = -(-len(cut) // columns)
    tall = len(order) * max(0.24, 0.11 * len(titles) + 0.08) + 0.75
    figure = style.new_figure(4.8 if columns == 1 else style.PAGE, lines * tall + 0.3)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        _frame(each, order, named=index % columns == 0)
        for place, ((method, options), title) in enumerate(titles.items()):
            same = (panel.rows["method"] == method) & (panel.rows["options"] == options)
            offset = (place - (len(titles) - 1) / 2) * 0.6 / len(titles)
            _forest(each, panel.rows[same], order, offset, colours[title], title)
        each.set_title(panel.title)
        if index + columns >= len(cut):
            each.set_xlabel("Shapley value on test [points]")
            each.tick_params(labelbottom=True)
    style.hide_unused(list(axes.ravel()), len(cut))
    put_legend = style.side_legend if columns == 1 else style.legend_below
    put_legend(figure, _handles(colours))
    return figure


def _frame(axes: Axes, order: list[str], *, named: bool) -> None:
    for place in range(0, len(order), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.955", linewidth=0, zorder=0)
    axes.axvline(0, color="0.25", linewidth=1.0, zorder=1)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_yticks(range(len(order)), [style.label(task) for task in order] if named else [])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, min_n_ticks=2))


def _forest(
    axes: Axes,
    rows: pd.DataFrame,
    order: list[str],
    offset: float,
    colour: style.Colour,
    title: str,
) -> None:
    tasks = rows.groupby("task").agg(
        value=("value", "mean"), alone=("alone", "mean"), low=("low", "min"), high=("high", "max")
    )
    tasks = 100 * tasks.reindex([task for task in order if task in tasks.index])
    y = [order.index(str(task)) + offset for task in tasks.index]
    axes.hlines(y, tasks["low"], tasks["high"], color=colour, linewidth=1.4, zorder=3)
    marks: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": _SIZE, "color": colour}
    axes.plot(tasks["alone"], y, label=f"{title}: alone", zorder=2, **marks | _OPEN)
    axes.plot(tasks["value"], y, label=f"{title}: values", zorder=4, **marks)


def _handles(colours: dict[str, style.Colour]) -> list[Line2D]:
    methods = [
        Line2D([], [], color=colour, marker="o", markersize=_SIZE, label=title)
        for title, colour in colours.items()
    ]
    alone = Line2D(
        [], [], color="0.25", linestyle="", marker="o", markersize=_SIZE, label="alone", **_OPEN
    )
    return [*methods, alone]
