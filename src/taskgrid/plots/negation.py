"""What is forgotten, and what is kept: each negated task beside the control."""

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
    title="Task negation",
    category="Editing one task",
    tables=("negation/targets",),
    caption="""
    What negating a task vector does to the task itself (left) and to the control tasks (right, their
    mean): accuracy on the **test** split, from zero-shot (open) to the negated model (filled). λ < 0 was
    chosen on **validation**: the lowest accuracy on the target among those at which every control task
    keeps its share of zero-shot accuracy (bar: that share of the mean). Crosses: no λ keeps it, and the
    one shown keeps most. Bands: 95 % intervals of the difference, by a bootstrap in which both models see
    the same images. With several seeds the mean, and the span of their intervals.
    """,
)

_ASKED = "to be kept"
_BAR: dict[str, Any] = {"marker": "|", "markersize": 8.0, "markeredgewidth": 1.2}


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw targets and control: a row per model and mode."""
    rows = tables["negation/targets"]
    if rows.empty:
        return sheet.message("no task was negated yet")
    titles = frames.method_titles(rows)
    looks = style.looks(list(titles.values()))
    cut = frames.panels(rows)
    order = sheet.ordered(rows["task"])
    unmet = not rows["met"].astype(bool).all()
    asked = Line2D([], [], color=style.GREY, linestyle="", label=_ASKED, **_BAR)
    legend = [*dumbbells.handles(looks, unmet=unmet), asked]
    tall = dumbbells.height(len(order), len(titles)) + 0.25
    figure = sheet.figure(len(cut) * tall + 0.3, legend)
    axes = figure.subplots(len(cut), 2, squeeze=False, sharex="col", width_ratios=(3, 2))
    names = [style.label(task) for task in order]
    for panel, (left, right) in zip(cut, axes, strict=True):
        dumbbells.frame(left, names, named=True)
        dumbbells.frame(right, names, named=False, ticks=3 if sheet.narrow else 5)
        left.set_title(panel.title, loc="left")
        for own, offset, title in dumbbells.lanes(panel.rows, titles):
            _draw(left, right, own, order, offset, looks[title], title)
        _asked(right, panel.rows, order)
    room = (sheet.inches - max(style.text_width(name, style.SMALL) for name in names) - 0.3) / 5
    for each, words, share in zip(axes[-1], ("target", "control"), (3, 2), strict=True):
        each.set_xlabel(style.wrapped(f"{words} accuracy [%]", share * room))
    return figure


def _asked(axes: Axes, rows: pd.DataFrame, order: list[str]) -> None:
    """Draw what the control was to keep; it is no matter of the method."""
    wanted = 100 * (rows["keep"] * rows["control_zeroshot"]).groupby(rows["task"]).mean()
    y = [order.index(str(task)) for task in wanted.index]
    axes.plot(wanted, y, color=style.GREY, linestyle="", label=_ASKED, zorder=2.5, **_BAR)


def _draw(
    left: Axes,
    right: Axes,
    rows: pd.DataFrame,
    order: list[str],
    offset: float,
    look: style.Look,
    title: str,
) -> None:
    means = ["zeroshot", "accuracy", "control_zeroshot", "control_accuracy"]
    tasks = rows.groupby("task").agg(
        **{name: (name, "mean") for name in means},
        low=("low", "min"),
        high=("high", "max"),
        met=("met", "all"),
    )
    tasks = tasks.reindex([task for task in order if task in tasks.index])
    y = [order.index(str(task)) + offset for task in tasks.index]
    met = [bool(one) for one in tasks["met"]]
    before = tasks["zeroshot"]
    dumbbells.draw_interval(left, y, before - tasks["high"], before - tasks["low"], look)
    dumbbells.draw_between(left, y, before, tasks["accuracy"], look, title, met)
    control = (tasks["control_zeroshot"], tasks["control_accuracy"])
    dumbbells.draw_between(right, y, *control, look, title, met)
