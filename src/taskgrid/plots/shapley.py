"""What each task contributes to the merge of all: Shapley values with their intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskgrid.plots import dumbbells, frames, style
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


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw every task's value, the largest on top: a panel per model and mode."""
    rows = tables["shapley/values"]
    if rows.empty:
        return style.message("no Shapley value was computed yet")
    titles = frames.method_titles(rows)
    colours = style.category_colours(list(titles.values()))
    cut = frames.panels(rows, [key for key in ("study", "model", "mode") if key in rows])
    order = dumbbells.largest_first(rows, "task", "value")
    names = [style.label(task) for task in order]
    columns = style.columns_for(len(cut))
    lines = -(-len(cut) // columns)
    tall = len(order) * max(0.24, 0.11 * len(titles) + 0.08) + 0.75
    figure = style.new_figure(4.8 if columns == 1 else style.PAGE, lines * tall + 0.3)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        dumbbells.frame(each, names, named=index % columns == 0, ticks=6)
        each.axvline(0, color="0.25", linewidth=1.0, zorder=1)
        for own, offset, title in dumbbells.lanes(panel.rows, titles):
            _forest(each, own, order, offset, colours[title], title)
        each.set_title(panel.title)
        if index + columns >= len(cut):
            each.set_xlabel("Shapley value on test [points]")
            each.tick_params(labelbottom=True)
    style.hide_unused(list(axes.ravel()), len(cut))
    put_legend = style.side_legend if columns == 1 else style.legend_below
    put_legend(figure, dumbbells.handles(colours, base="alone"))
    return figure


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
    size = dumbbells.SIZE
    marks: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": size, "color": colour}
    axes.plot(tasks["alone"], y, label=f"{title}: alone", zorder=2, **marks | dumbbells.OPEN)
    axes.plot(tasks["value"], y, label=f"{title}: values", zorder=4, **marks)
