"""Accuracy against the scaling coefficient, one curve per subset size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Accuracy against the scaling coefficient",
    category="Task addition",
    tables=("grid", "selected"),
    caption="""
    Accuracy of merged models on the **validation** split against the scaling coefficient λ. A
    merge is scored by the mean accuracy over the tasks it contains. Each line is the median
    over all subsets of one size and over seeds; the band, drawn for up to eight sizes, spans
    the quartiles. Dotted: the pre-trained model (zero-shot), mean over the tasks; dashed: each
    task's own expert. The strip below each panel shows which λ was chosen for the subsets of
    each size (first maximum of mean normalised accuracy on validation); the area of a dot is
    the share of the size's subsets.
    """,
)

_MANY_SIZES = 8
_MANY_LAMBDAS = 31
_MARKER = 2.6
_HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.8}


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw validation accuracy against lambda: a panel per method, a row per model and mode."""
    grid = tables["grid"]
    means = frames.subset_means(grid, "val")
    if means.empty:
        return style.message("no merged grid point was evaluated on validation yet")
    chosen = frames.chosen_points(tables["selected"])
    cut = frames.panels(means, ("model", "mode", "method", "options"))
    sizes = sorted(int(size) for size in means["size"].unique())
    colours = style.ordered_colours(sizes)
    columns = style.columns_for(len(cut), len(frames.method_titles(means)))
    rows = -(-len(cut) // columns)
    strip = 0.45 + 0.09 * min(len(sizes), 20)
    marked = bool(means["interpolated"].any())
    # One look for all panels where the legend has to name it.
    all_few = all(map(_few, cut))
    figure = style.new_figure(_width(columns), rows * (2.3 + strip))
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.3, strip] * rows)
    shared: Axes | None = None
    for index, panel in enumerate(cut):
        row, column = divmod(index, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        if shared is None:
            shared = above
        else:
            above.sharey(shared)
            above.sharex(shared)
        below.sharex(above)
        few = all_few if marked else _few(panel)
        _curves(above, panel.rows, colours, few=few, marked=marked)
        _references(above, grid, panel)
        _choices(below, _of_panel(chosen, panel.rows), colours)
        above.set_title(panel.title)
        above.tick_params(labelbottom=False)
        below.set_title("chosen λ", loc="left", fontsize=7.5, pad=2)
        below.set_xlabel(style.LAMBDA_LABEL)
        above.tick_params(labelleft=column == 0)
        below.tick_params(labelleft=column == 0)
        if column == 0:
            above.set_ylabel("accuracy on validation [%]")
            below.set_ylabel("tasks\nmerged")
    for index in range(len(cut), rows * columns):
        row, column = divmod(index, columns)
        style.hide_unused([axes[2 * row, column], axes[2 * row + 1, column]], 0)
    figure.align_ylabels()
    _legend(figure, axes, sizes, colours, _kinds(all_few) if marked else [])
    return figure


def _width(columns: int) -> float:
    return 4.4 if columns == 1 else style.PAGE


def _curves(
    axes: Axes,
    rows: pd.DataFrame,
    colours: dict[int, style.Colour],
    *,
    few: bool,
    marked: bool,
) -> None:
    for size in sorted(rows["size"].unique()):
        part = rows[rows["size"] == size]
        scores = 100 * part.groupby("scale")["accuracy"].apply(_quartiles).unstack()
        colour = colours[int(size)]
        axes.plot(
            scores.index,
            scores[0.5],
            color=colour,
            marker="o" if few else "",
            markersize=_MARKER,
            label=f"size {size}",
            zorder=3,
        )
        if marked:
            _mark(axes, part, scores[0.5], colour, few=few)
        if len(colours) <= _MANY_SIZES:
            axes.fill_between(
                scores.index, scores[0.25], scores[0.75], color=colour, alpha=0.16, linewidth=0
            )


def _few(panel: frames.Panel) -> bool:
    return bool(panel.rows["scale"].nunique() <= _MANY_LAMBDAS)


def _mark(
    axes: Axes, rows: pd.DataFrame, medians: pd.Series, colour: style.Colour, *, few: bool
) -> None:
    """Tell the points of a curve apart: interpolated where any row behind the median is."""
    size = rows["size"].iloc[0]
    # A median moves with its values, so it lies between those of the lower and of the upper ends.
    ends = rows.assign(low=rows["accuracy"] - rows["bound"], high=rows["accuracy"] + rows["bound"])
    at = ends.groupby("scale").agg(
        low=("low", "median"), high=("high", "median"), interpolated=("interpolated", "any")
    )
    between, low, high = at["interpolated"], 100 * at["low"], 100 * at["high"]
    bounds = f"bounds, size {size}"
    if few:
        lines = (at.index[between], low[between], high[between])
        axes.vlines(*lines, color=colour, linewidth=0.8, label=bounds, zorder=2.5)
    else:
        axes.fill_between(
            at.index, low, high, color=colour, alpha=0.4, linewidth=0, label=bounds, zorder=2.5
        )
    # Hollow markers hide those of the curve; where the curve has none, the measured ones get theirs.
    points = medians[between] if few else medians[~between]
    axes.plot(
        points.index,
        points,
        linestyle="",
        marker="o",
        markersize=_MARKER,
        color=colour,
        label=f"{'interpolated' if few else 'measured'}, size {size}",
        zorder=4,
        **(_HOLLOW if few else {}),
    )


def _quartiles(values: pd.Series) -> pd.Series:
    return values.quantile(np.array([0.25, 0.5, 0.75]))


def _references(axes: Axes, grid: pd.DataFrame, panel: frames.Panel) -> None:
    tasks = {task for name in panel.rows["subset"].unique() for task in name.split("+")}
    scores = frames.reference_scores(grid, "val", panel.model, panel.mode)
    means = scores[scores.index.isin(tasks)].mean()
    for name, dashes in style.REFERENCE.items():
        if np.isfinite(means[name]):
            axes.axhline(
                100 * means[name],
                color="0.25",
                linestyle=dashes,
                linewidth=1.0,
                label=name,
                zorder=2,
            )


def _choices(axes: Axes, chosen: pd.DataFrame, colours: dict[int, style.Colour]) -> None:
    sizes = list(colours)
    for size in sorted(chosen["size"].unique()):
        part = chosen[chosen["size"] == size]
        share = part["scale"].value_counts(normalize=True).sort_index()
        axes.scatter(
            share.index,
            np.full(len(share), sizes.index(int(size))),
            s=3 + 42 * share.to_numpy(),
            color=colours[int(size)],
            linewidth=0,
            label=f"chosen, size {size}",
        )
    step = -(-len(sizes) // _MANY_SIZES)
    ticks = range(0, len(sizes), step)
    axes.set_yticks(list(ticks), [str(sizes[tick]) for tick in ticks])
    axes.set_ylim(len(sizes) - 0.4, -0.6)
    if chosen.empty:
        axes.text(0.5, 0.5, "none chosen yet", ha="center", va="center", transform=axes.transAxes)


def _of_panel(chosen: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    first = rows.iloc[0]
    keys = ("model", "mode", "method", "options")
    keep = pd.Series(True, index=chosen.index)
    for key in keys:
        keep &= chosen[key] == first[key]
    return chosen[keep]


def _kinds(few: bool) -> list[Line2D]:
    """Return what the markers mean where some points are interpolated."""
    looks = {
        "measured": {"marker": "o"},
        "interpolated,\nwith its bound": {"marker": "o", **_HOLLOW} if few else {"marker": ""},
    }
    return [
        Line2D([], [], color="0.25", markersize=_MARKER, label=words, **look)
        for words, look in looks.items()
    ]


def _legend(
    figure: Figure,
    axes: np.ndarray,
    sizes: list[int],
    colours: dict[int, style.Colour],
    kinds: list[Line2D],
) -> None:
    levels = [
        Line2D([], [], color="0.25", linewidth=1.0, linestyle=dashes, label=name)
        for name, dashes in style.REFERENCE.items()
    ]
    if len(sizes) <= _MANY_SIZES:
        lines = [Line2D([], [], color=colours[size], label=str(size)) for size in sizes]
        style.side_legend(figure, [*lines, *levels, *kinds], title="tasks merged")
        return
    edges = [sizes[0] - 0.5, *(size + 0.5 for size in sizes)]
    mapped = ScalarMappable(BoundaryNorm(edges, len(sizes)), ListedColormap(list(colours.values())))
    bar = figure.colorbar(
        mapped, ax=list(axes.ravel()), label="tasks merged", fraction=0.05, aspect=30
    )
    bar.set_ticks(sizes[:: -(-len(sizes) // 10)])
    bar.minorticks_off()
    figure.legend(handles=[*levels, *kinds], loc="outside upper center", ncols=4)
