"""What an analogy gains on its fourth task, beside the experts that there are."""

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
    title="Task analogies",
    category="Editing one task",
    tables=("analogy/quadruples",),
    caption="""
    "A is to B as C is to D": accuracy on the **test** split of D, from zero-shot (open) to the model with
    the vector x (C + B - A) (filled), which has seen no training image of D. x was chosen on D's
    **validation** images. Crosses: no x beats zero-shot there. Bands: 95 % intervals of the difference, by
    a bootstrap in which both models see the same images. Bar: the best expert of A, B and C as it is;
    star: D's own expert, where it has one. With several seeds the mean, and the span of their
    intervals.
    """,
)

_MARKS: dict[str, dict[str, Any]] = {
    "others": {"marker": "|", "markersize": 8.0, "markeredgewidth": 1.2},
    "expert": {
        "marker": "*",
        "markersize": 5.0,
        "markerfacecolor": "white",
        "markeredgewidth": 0.7,
    },
}
_WORDS = {"others": "best of A, B, C", "expert": "expert of D"}


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw every analogy: a panel per model and mode."""
    rows = tables["analogy/quadruples"]
    if rows.empty:
        return sheet.message("no analogy was made yet")
    quadruples = {
        tuple(map(str, row)) for row in rows[["a", "b", "c", "task"]].itertuples(index=False)
    }
    tasks = sheet.ordered(name for row in quadruples for name in row)
    # Those of one fourth task beside one another.
    order = sorted(quadruples, key=lambda row: [tasks.index(name) for name in row[::-1]])
    room = 0.42 * sheet.inches
    names = [
        style.wrapped(f"{a} : {b}\n:: {c} : {d}", room, style.SMALL)
        for a, b, c, d in (tuple(map(style.label, row)) for row in order)
    ]
    place = {row: at for at, row in enumerate(order)}
    at = [place[row] for row in zip(rows["a"], rows["b"], rows["c"], rows["task"], strict=True)]
    rows = rows.assign(place=at)
    titles = frames.method_titles(rows)
    looks = style.looks(list(titles.values()))
    cut = frames.panels(rows)
    unmet = not rows["met"].astype(bool).all()
    levels = [
        Line2D([], [], color=style.GREY, linestyle="", label=_WORDS[name], **marks)
        for name, marks in _MARKS.items()
        if rows[name].notna().any()
    ]
    least = 0.11 * max(words.count("\n") + 1 for words in names) + 0.06
    tall = dumbbells.height(len(order), len(titles), least) + 0.25
    legend = [*dumbbells.handles(looks, unmet=unmet), *levels]
    figure = sheet.figure(len(cut) * tall + 0.3, legend)
    axes = figure.subplots(len(cut), 1, squeeze=False, sharex=True).ravel()
    for panel, each in zip(cut, axes, strict=True):
        dumbbells.frame(each, names, named=True)
        each.set_title(panel.title, loc="left")
        for own, offset, title in dumbbells.lanes(panel.rows, titles):
            _draw(each, own, offset, looks[title], title)
        _levels(each, panel.rows)
    axes[-1].set_xlabel("accuracy on D [%]")
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, offset: float, look: style.Look, title: str) -> None:
    found = rows.groupby("place").agg(
        zeroshot=("zeroshot", "mean"),
        accuracy=("accuracy", "mean"),
        low=("low", "min"),
        high=("high", "max"),
        met=("met", "all"),
    )
    y = list(found.index + offset)
    before = found["zeroshot"]
    dumbbells.draw_interval(axes, y, before + found["low"], before + found["high"], look)
    met = [bool(one) for one in found["met"]]
    dumbbells.draw_between(axes, y, before, found["accuracy"], look, title, met)


def _levels(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw what experts reach; it is no matter of the method."""
    for name, marks in _MARKS.items():
        means = 100 * rows.groupby("place")[name].mean().astype(float).dropna()
        look = {"color": style.GREY, "linestyle": "", **marks}
        axes.plot(means, means.index, label=_WORDS[name], zorder=2.5, **look)
