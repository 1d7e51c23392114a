"""How far experts and merges are from the base at the class token, layer by layer and part by part."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import curves, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Class tokens over depth",
    category="Inside the network",
    tables=("features/norms",),
    caption="""
    How far the class token is from the base's, as a share of the base's norm: |f(θ) − f(θ₀)| by
    |f(θ₀)|, norms averaged over images of the training split, then over tasks and seeds. From
    what enters the first block to the features; queries, keys, values, what attention and
    perceptron give, and the residual stream behind each block. Dashed: each task's own expert.
    Merges are those of the study, each on its own tasks and at the point that was chosen for it
    on **validation**.
    """,
)

PARTS = {
    "q": "queries",
    "k": "keys",
    "v": "values",
    "attention": "attention",
    "mlp": "perceptron",
    "block": "stream",
}

_EXPERT: dict[str, Any] = {"color": "0.1", "linestyle": style.REFERENCE["experts"]}


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw every part against depth: a row of each, a column per model and mode."""
    rows = tables["features/norms"]
    rows = rows[(rows["token"] == 0) & rows["chosen"].astype(bool) & (rows["norm_base"] > 0)]
    if rows.empty:
        return sheet.message("no network was looked at yet")
    rows = rows.assign(moved=100 * rows["norm_delta"] / rows["norm_base"])
    titles = frames.merge_titles(rows)
    looks = style.looks(list(titles.values()))
    cut = frames.panels(rows)
    merges = [Line2D([], [], label=title, **look.line()) for title, look in looks.items()]
    own = Line2D([], [], label="expert", **_EXPERT)
    figure, axes = curves.frame(sheet, len(PARTS), len(cut), 0.85, [own, *merges])
    for column, panel in enumerate(cut):
        for each, part in zip(axes[:, column], PARTS, strict=True):
            _draw_lines(each, panel.rows[panel.rows["part"] == part], titles, looks)
            each.set_ylim(bottom=0)
        layers = panel.rows[["depth", "layer"]].drop_duplicates().sort_values("depth")["layer"]
        curves.finish(sheet, axes[:, column], panel.title, [str(layer) for layer in layers])
    for each, words in zip(axes[:, 0], PARTS.values(), strict=True):
        each.set_ylabel(f"{words} [%]")
    figure.align_ylabels(list(axes[:, 0]))
    return figure


def _draw_lines(
    axes: Axes,
    rows: pd.DataFrame,
    titles: dict[tuple[str, str], str],
    looks: dict[str, style.Look],
) -> None:
    for (method, options), own in rows.groupby(["method", "options"], sort=True):
        line = own.groupby("depth")["moved"].mean()
        expert = method == "expert"
        look = _EXPERT if expert else looks[titles[str(method), str(options)]].line(markersize=2.8)
        axes.plot(line.index, line, zorder=3 if expert else 2, **look)
