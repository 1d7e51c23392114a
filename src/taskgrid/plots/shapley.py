"""What each task contributes to the merge of all: Shapley values with their intervals."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskgrid.plots import dumbbells, frames, style
from taskgrid.plots.sheet import Sheet
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
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw every task's value: a panel per model and mode."""
    rows = tables["shapley/values"]
    if rows.empty:
        return sheet.message("no Shapley value was computed yet")
    titles = frames.method_titles(rows)
    looks = style.looks(list(titles.values()))
    cut = frames.panels(rows)
    order = sheet.ordered(rows["task"])
    names = [style.label(task) for task in order]
    columns = sheet.across(len(cut), beside=0.8)
    lines = -(-len(cut) // columns)
    tall = dumbbells.height(len(order), len(titles)) + 0.25
    figure = sheet.figure(lines * tall + 0.3, dumbbells.handles(looks, base="alone"))
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        dumbbells.frame(each, names, named=index % columns == 0, ticks=6)
        each.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
        for own, offset, title in dumbbells.lanes(panel.rows, titles):
            _forest(each, own, order, offset, looks[title], title)
        each.set_title(style.wrapped(panel.title, sheet.inches / columns - 0.4))
    style.hide_unused(list(axes.ravel()), len(cut))
    drawn = list(axes.ravel()[: len(cut)])
    style.label_lowest(drawn, columns, "Shapley value on test [points]", sheet.inches / columns)
    return figure


def _forest(
    axes: Axes,
    rows: pd.DataFrame,
    order: list[str],
    offset: float,
    look: style.Look,
    title: str,
) -> None:
    tasks = rows.groupby("task").agg(
        value=("value", "mean"), alone=("alone", "mean"), low=("low", "min"), high=("high", "max")
    )
    tasks = 100 * tasks.reindex([task for task in order if task in tasks.index])
    y = [order.index(str(task)) + offset for task in tasks.index]
    axes.hlines(y, tasks["low"], tasks["high"], color=look.colour, linewidth=1.2, zorder=3)
    axes.plot(tasks["alone"], y, label=f"{title}: alone", zorder=2, **look.marks(**style.HOLLOW))
    axes.plot(tasks["value"], y, label=f"{title}: values", zorder=4, **look.marks())
