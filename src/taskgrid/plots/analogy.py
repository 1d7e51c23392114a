"""What an analogy gains on its fourth task, beside the experts that there are."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import dumbbells, frames, style
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
    diamond: D's own expert, where it has one. With several seeds the mean, and the span of their
    intervals.
    """,
)

_MARKS: dict[str, dict[str, Any]] = {
    "others": {"marker": "|", "markersize": 9.0, "markeredgewidth": 1.4},
    "expert": {"marker": "D", "markersize": 3.4, "markerfacecolor": "white"},
}
_WORDS = {"others": "best of A, B, C", "expert": "expert of D"}


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw every analogy, the largest gain on top: a panel per model and mode."""
    rows = tables["analogy/quadruples"]
    if rows.empty:
        return style.message("no analogy was made yet")
    words = [
        f"{style.label(a)} : {style.label(b)}\n:: {style.label(c)} : {style.label(d)}"
        for a, b, c, d in zip(rows["a"], rows["b"], rows["c"], rows["task"], strict=True)
    ]
    rows = rows.assign(words=words)
    titles = frames.method_titles(rows)
    colours = style.category_colours(list(titles.values()))
    cut = frames.panels(rows, [key for key in ("study", "model", "mode") if key in rows])
    order = dumbbells.largest_first(rows, "words", "gain")
    tall = len(order) * max(0.42, 0.13 * len(titles) + 0.1) + 0.8
    figure = style.new_figure(5.6, len(cut) * tall + 0.35)
    axes = figure.subplots(len(cut), 1, squeeze=False, sharex=True).ravel()
    for panel, each in zip(cut, axes, strict=True):
        dumbbells.frame(each, order, named=True)
        each.set_title(panel.title, loc="left")
        for own, offset, title in dumbbells.lanes(panel.rows, titles):
            _draw(each, own, order, offset, colours[title], title)
        _levels(each, panel.rows, order)
    axes[-1].set_xlabel("accuracy on D [%]")
    unmet = not rows["met"].astype(bool).all()
    shown = [name for name in _MARKS if rows[name].notna().any()]
    levels = [
        Line2D([], [], color="0.25", linestyle="", label=_WORDS[name], **_MARKS[name])
        for name in shown
    ]
    style.legend_below(figure, [*dumbbells.handles(colours, unmet=unmet), *levels])
    return figure


def _draw(
    axes: Axes,
    rows: pd.DataFrame,
    order: list[str],
    offset: float,
    colour: style.Colour,
    title: str,
) -> None:
    found = rows.groupby("words").agg(
        zeroshot=("zeroshot", "mean"),
        accuracy=("accuracy", "mean"),
        low=("low", "min"),
        high=("high", "max"),
        met=("met", "all"),
    )
    y = [order.index(str(words)) + offset for words in found.index]
    before = found["zeroshot"]
    dumbbells.draw_interval(axes, y, before + found["low"], before + found["high"], colour)
    met = [bool(one) for one in found["met"]]
    dumbbells.draw_between(axes, y, before, found["accuracy"], colour, title, met)


def _levels(axes: Axes, rows: pd.DataFrame, order: list[str]) -> None:
    """Draw what experts reach; it is no matter of the method."""
    for name, marks in _MARKS.items():
        means = rows.groupby("words")[name].mean().astype(float).dropna()
        y = [order.index(str(words)) for words in means.index]
        axes.plot(
            100 * means, y, color="0.25", linestyle="", label=_WORDS[name], zorder=2.5, **marks
        )
