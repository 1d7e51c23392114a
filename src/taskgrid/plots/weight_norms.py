"""How far weights go from the base, and how long they get, as lambda grows."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import curves, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Norms of weights over λ",
    category="Inside the network",
    tables=("features/weights",),
    caption="""
    All weights of the visual tower: how far they are from the pre-trained ones, and how long
    they are, as a share of the norm of the pre-trained ones, over the scaling coefficient; mean
    over seeds, and over tasks where a method has a model for each. Thin: each task vector
    alone. A single mark: a merge that has no coefficient. Weights only: no data split is
    involved.
    """,
)

_THIN = "0.75"
_QUANTITIES = {"norm_delta": "|θ − θ₀| by |θ₀| [%]", "norm": "|θ| by |θ₀| [%]"}


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw both quantities against lambda: a row of each, a column per model and mode."""
    rows = tables["features/weights"]
    rows = rows[(rows["layer"] == "all") & rows["scale"].notna()]
    if rows.empty:
        return sheet.message("no network was looked at yet")
    titles = frames.merge_titles(rows)
    looks = style.looks(list(titles.values()))
    cut = frames.panels(rows)
    thin = Line2D([], [], color=_THIN, linewidth=0.8, label="a task vector")
    merges = [Line2D([], [], label=title, **look.line()) for title, look in looks.items()]
    figure, axes = curves.frame(sheet, len(_QUANTITIES), len(cut), 1.3, [thin, *merges])
    for column, panel in enumerate(cut):
        for each, quantity in zip(axes[:, column], _QUANTITIES, strict=True):
            shares = panel.rows.assign(share=100 * panel.rows[quantity] / panel.rows["norm_base"])
            _draw_lines(each, shares, titles, looks)
            if each.get_subplotspec().is_last_row():
                each.set_xlabel("λ" if len(cut) > 1 else style.LAMBDA_LABEL)
        curves.finish(sheet, axes[:, column], panel.title)
    for each, words in zip(axes[:, 0], _QUANTITIES.values(), strict=True):
        each.set_ylabel(words)
    figure.align_ylabels(list(axes[:, 0]))
    return figure


def _draw_lines(
    axes: Axes,
    rows: pd.DataFrame,
    titles: dict[tuple[str, str], str],
    looks: dict[str, style.Look],
) -> None:
    for (method, options, _), own in rows.groupby(["method", "options", "subset"], sort=True):
        line = own.groupby("scale")["share"].mean()
        if method == "expert":
            axes.plot(line.index, line, color=_THIN, linewidth=0.6, zorder=2)
        else:
            look = looks[titles[str(method), str(options)]]
            every = max(1, len(line) // 6)
            axes.plot(line.index, line, zorder=3, **look.line(markevery=every))
