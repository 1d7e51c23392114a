"""Normalised accuracy against the number of merged tasks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from taskgrid.plots import frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Normalised accuracy against subset size",
    category="Task addition",
    tables=("grid", "selected"),
    caption="""
    Normalised accuracy on the **test** split against the number of merged tasks, every subset
    at its own λ, chosen on **validation** (first maximum of mean normalised accuracy).
    Normalised: each task's accuracy divided by the accuracy of its own expert, then averaged
    over the tasks of the subset. Each point is one subset (mean over seeds; with several seeds
    a whisker spans them, up to 100 subsets), points are spread sideways to be seen; the line
    joins the means over all subsets of a size. Dashed: the experts (100 %); dotted: the pre-
    trained model (zero-shot), mean over the tasks.
    """,
)

_MANY_POINTS = 100


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw test normalised accuracy against subset size: a panel per model and mode."""
    chosen = frames.chosen_points(tables["selected"])
    if chosen.empty:
        return style.message("no scaling coefficient was chosen yet")
    titles = frames.method_titles(chosen)
    colours = style.category_colours(list(titles.values()))
    dashes = style.category_dashes(list(titles.values()))
    cut = frames.panels(chosen)
    columns = style.columns_for(len(cut))
    rows = -(-len(cut) // columns)
    figure = style.new_figure(4.8 if columns == 1 else style.PAGE, 2.8 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    for index, (panel, each) in enumerate(zip(cut, axes.ravel(), strict=False)):
        _levels(each, tables["grid"], panel)
        for place, ((method, options), title) in enumerate(titles.items()):
            mine = (panel.rows["method"] == method) & (panel.rows["options"] == options)
            offset = (place - (len(titles) - 1) / 2) * 0.7 / len(titles)
            part = panel.rows[mine]
            _series(each, part, title, offset, 0.5 / len(titles), colours[title], dashes[title])
        each.set_title(panel.title)
        each.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        sizes = panel.rows["size"].astype(int)
        each.set_xlim(sizes.min() - 0.6, sizes.max() + 0.6)
        each.grid(visible=False, axis="x")
        if index // columns == rows - 1 or index + columns >= len(cut):
            each.set_xlabel("tasks merged")
            each.tick_params(labelbottom=True)
        if index % columns == 0:
            each.set_ylabel("normalised accuracy on test [%]")
    style.hide_unused(list(axes.ravel()), len(cut))
    put_legend = style.side_legend if columns == 1 else style.legend_below
    put_legend(figure, _handles(colours, dashes))
    return figure


def _series(
    axes: Axes,
    rows: pd.DataFrame,
    title: str,
    offset: float,
    width: float,
    colour: style.Colour,
    dashes: style.Dashes,
) -> None:
    seeds = rows.groupby(["size", "subset"], sort=True)["test_normalized"].agg(
        ["mean", "min", "max"]
    )
    seeds = seeds.reset_index()
    rank = seeds.groupby("size").cumcount()
    count = seeds.groupby("size")["subset"].transform("count")
    # A fixed low-discrepancy walk instead of random jitter: the same figure every time.
    walk = ((rank + 0.5) * 0.618034 % 1 - 0.5).where(count > 1, 0.0)
    x = seeds["size"].astype(float) + offset + walk * width
    many = len(seeds) > _MANY_POINTS
    if rows["seed"].nunique() > 1 and not many:
        axes.vlines(
            x, 100 * seeds["min"], 100 * seeds["max"], color=colour, alpha=0.35, linewidth=0.8
        )
    axes.scatter(
        x,
        100 * seeds["mean"],
        s=5 if many else 11,
        color=colour,
        alpha=0.35 if many else 0.55,
        linewidth=0,
        label=f"{title}: subsets",
    )
    means = seeds.groupby("size")["mean"].mean()
    axes.plot(
        means.index.astype(float) + offset,
        100 * means,
        color=colour,
        linestyle=dashes,
        marker="D",
        markersize=3.6,
        markeredgecolor="white",
        markeredgewidth=0.6,
        label=f"{title}: mean",
        zorder=4,
    )


def _levels(axes: Axes, grid: pd.DataFrame, panel: frames.Panel) -> None:
    tasks = {task for name in panel.rows["subset"].unique() for task in name.split("+")}
    scores = frames.reference_scores(grid, "test", panel.model, panel.mode)
    scores = scores[scores.index.isin(tasks)]
    zero = float((scores["zero-shot"] / scores["experts"]).mean())
    levels = {"experts": 1.0, "zero-shot": zero}
    for name, level in levels.items():
        if np.isfinite(level):
            axes.axhline(
                100 * level,
                color="0.25",
                linewidth=1.0,
                linestyle=style.REFERENCE[name],
                label=name,
                zorder=1,
            )


def _handles(colours: dict[str, style.Colour], dashes: dict[str, style.Dashes]) -> list[Line2D]:
    methods = [
        Line2D(
            [],
            [],
            color=colours[title],
            linestyle=dashes[title],
            marker="D",
            markersize=3.6,
            label=title,
        )
        for title in colours
    ]
    levels = [
        Line2D([], [], color="0.25", linewidth=1.0, linestyle=pattern, label=name)
        for name, pattern in style.REFERENCE.items()
    ]
    return [*methods, *levels]
