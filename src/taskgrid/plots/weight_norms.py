"""How far weights go from the base, and how long they get, as lambda grows."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import frames, style
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
def draw(tables: style.Tables) -> Figure:
    """Draw both quantities against lambda: a column per model and mode."""
    rows = tables["features/weights"]
    rows = rows[(rows["layer"] == "all") & rows["scale"].notna()]
    if rows.empty:
        return style.message("no network was looked at yet")
    titles = frames.merge_titles(rows)
    colours = style.category_colours(list(titles.values()))
    cut = frames.panels(rows, [key for key in ("study", "model", "mode") if key in rows])
    figure = style.new_figure(max(1.6 * len(cut) + 0.9, style.COLUMN), 3.9)
    axes = figure.subplots(2, len(cut), squeeze=False, sharex=True, sharey="row")
    for column, panel in enumerate(cut):
        axes[0, column].set_title(panel.title)
        axes[1, column].set_xlabel("λ")
        for each, quantity in zip(axes[:, column], _QUANTITIES, strict=True):
            shares = panel.rows.assign(share=100 * panel.rows[quantity] / panel.rows["norm_base"])
            _draw_lines(each, shares, titles, colours)
    for each, words in zip(axes[:, 0], _QUANTITIES.values(), strict=True):
        each.set_ylabel(words)
    figure.align_ylabels(list(axes[:, 0]))
    thin = Line2D([], [], color=_THIN, linewidth=0.8, label="a task vector")
    merges = [Line2D([], [], color=colour, label=title) for title, colour in colours.items()]
    style.legend_below(figure, [thin, *merges])
    return figure


def _draw_lines(
    axes: Axes,
    rows: pd.DataFrame,
    titles: dict[tuple[str, str], str],
    colours: dict[str, style.Colour],
) -> None:
    for (method, options, _), own in rows.groupby(["method", "options", "subset"], sort=True):
        line = own.groupby("scale")["share"].mean()
        if method == "expert":
            axes.plot(line.index, line, color=_THIN, linewidth=0.6, zorder=2)
        else:
            colour = colours[titles[str(method), str(options)]]
            marker = "o" if len(line) == 1 else ""
            axes.plot(line.index, line, color=colour, marker=marker, markersize=4, zorder=3)
