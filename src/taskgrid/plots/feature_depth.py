"""How far experts and merges are from the base at the class token, layer by layer and part by part."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import frames, style
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

_EXPERT: style.Colour = (0.1, 0.1, 0.1)


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw every part against depth: a column per model and mode."""
    rows = tables["features/norms"]
    rows = rows[(rows["token"] == 0) & rows["chosen"].astype(bool) & (rows["norm_base"] > 0)]
    if rows.empty:
        return style.message("no network was looked at yet")
    rows = rows.assign(moved=100 * rows["norm_delta"] / rows["norm_base"])
    titles = frames.merge_titles(rows)
    colours = style.category_colours(list(titles.values()))
    cut = frames.panels(rows, [key for key in ("study", "model", "mode") if key in rows])
    figure = style.new_figure(max(1.45 * len(cut) + 0.9, 4.2), 0.95 * len(PARTS) + 1.0)
    axes = figure.subplots(len(PARTS), len(cut), squeeze=False, sharex="col", sharey="row")
    for column, panel in enumerate(cut):
        axes[0, column].set_title(panel.title)
        for each, part in zip(axes[:, column], PARTS, strict=True):
            _draw_lines(each, panel.rows[panel.rows["part"] == part], titles, colours)
        layers = panel.rows[["depth", "layer"]].drop_duplicates().sort_values("depth")["layer"]
        style.name_layers(axes[-1, column], [str(layer) for layer in layers])
    for each, words in zip(axes[:, 0], PARTS.values(), strict=True):
        each.set_ylabel(f"{words} [%]")
        each.set_ylim(bottom=0)
    figure.align_ylabels(list(axes[:, 0]))
    style.legend_below(figure, _handles(colours))
    return figure


def _draw_lines(
    axes: Axes,
    rows: pd.DataFrame,
    titles: dict[tuple[str, str], str],
    colours: dict[str, style.Colour],
) -> None:
    for (method, options), own in rows.groupby(["method", "options"], sort=True):
        line = own.groupby("depth")["moved"].mean()
        if method == "expert":
            dashes = style.REFERENCE["experts"]
            axes.plot(line.index, line, color=_EXPERT, linestyle=dashes, linewidth=1.0, zorder=3)
        else:
            colour = colours[titles[str(method), str(options)]]
            axes.plot(line.index, line, color=colour, marker=".", markersize=3, zorder=2)


def _handles(colours: dict[str, style.Colour]) -> list[Line2D]:
    dashes = style.REFERENCE["experts"]
    own = Line2D([], [], color=_EXPERT, linestyle=dashes, linewidth=1.0, label="expert")
    return [own, *(Line2D([], [], color=colour, label=title) for title, colour in colours.items())]
