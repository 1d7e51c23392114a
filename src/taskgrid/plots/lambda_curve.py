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
from taskgrid.plots.sheet import TALLEST, Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Accuracy against the scaling coefficient",
    category="Task addition",
    tables=("grid", "selected"),
    caption="""
    Accuracy of merged models on the **validation** split against the scaling coefficient λ. A
    merge is scored by the mean accuracy over the tasks it contains. Each line is the mean over
    all subsets of one size and over seeds, so that with all subsets it starts at zero-shot; the
    band, drawn for up to eight sizes, holds the middle half of the subsets. Dotted: the
    pre-trained model (zero-shot), mean over the tasks; dashed: each task's own expert. The strip
    below each panel shows which λ was chosen for the subsets of each size, the most tasks at the
    bottom (first maximum of mean normalised accuracy on validation); the area of a dot is the
    share of the size's subsets.
    """,
)

_MANY_SIZES = 8
_MANY_LAMBDAS = 31
_MARKER = 2.2
_SHARES = (0.2, 0.5, 1.0)
"""Shares of subsets whose dots the legend shows."""


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw validation accuracy against lambda: a panel per method, a row per model and mode."""
    grid = tables["grid"]
    means = frames.subset_means(grid, "val")
    if means.empty:
        return sheet.message("no merged grid point was evaluated on validation yet")
    chosen = frames.chosen_points(tables["selected"])
    cut = frames.panels(means, "method", "options")
    sizes = sorted(int(size) for size in means["size"].unique())
    colours = style.ordered_colours(sizes)
    columns = sheet.across(len(cut), len(frames.method_titles(means)), least=1.25)
    rows = -(-len(cut) // columns)
    strip = 0.12 + 0.08 * min(len(sizes), 12)
    tall = min(1.7, max(0.75, (TALLEST - 1.4) / rows - strip - 0.3))
    marked = bool(means["interpolated"].any())
    # One look for all panels where the legend has to name it.
    all_few = all(map(_few, cut))
    legend = _legend(colours, _kinds(all_few) if marked else [])
    figure = sheet.figure(rows * (tall + strip + 0.3) + 0.3, legend)
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[tall, strip] * rows)
    first: Axes = axes[0, 0]
    for index, panel in enumerate(cut):
        row, column = divmod(index, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        if above is not first:
            above.sharey(first)
            above.sharex(first)
        below.sharex(first)
        few = all_few if marked else _few(panel)
        _curves(above, panel.rows, colours, few=few, marked=marked)
        _references(above, grid, panel)
        _choices(below, _of_panel(chosen, panel.rows), colours)
        above.set_title(style.wrapped(panel.title, (sheet.inches - 0.5) / columns))
        above.tick_params(labelbottom=False, labelleft=column == 0)
        below.tick_params(labelleft=column == 0)
    for index in range(len(cut), rows * columns):
        row, column = divmod(index, columns)
        style.hide_unused([axes[2 * row, column], axes[2 * row + 1, column]], 0)
    if len(sizes) > _MANY_SIZES:
        _bar(figure, axes, colours)
    strips = [each for row in axes[1::2] for each in row][: len(cut)]
    style.label_lowest(strips, columns, style.LAMBDA_LABEL, sheet.inches / columns - 0.3)
    figure.supylabel("accuracy on validation [%]", fontsize=style.TEXT)
    return figure


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
        scores = 100 * part.groupby("scale")["accuracy"].agg(["mean", _low, _high])
        colour = colours[int(size)]
        axes.plot(
            scores.index,
            scores["mean"],
            color=colour,
            marker="o" if few else "",
            markersize=_MARKER,
            label=f"size {size}",
            zorder=3,
        )
        if marked:
            _mark(axes, part, scores["mean"], colour, few=few)
        if len(colours) <= _MANY_SIZES:
            band = (scores.index, scores["_low"], scores["_high"])
            axes.fill_between(*band, color=colour, alpha=0.16, linewidth=0)


def _low(values: pd.Series) -> float:
    return float(values.quantile(0.25))


def _high(values: pd.Series) -> float:
    return float(values.quantile(0.75))


def _few(panel: frames.Panel) -> bool:
    return bool(panel.rows["scale"].nunique() <= _MANY_LAMBDAS)


def _mark(
    axes: Axes, rows: pd.DataFrame, means: pd.Series, colour: style.Colour, *, few: bool
) -> None:
    """Tell the points of a curve apart: interpolated where any row behind the mean is."""
    size = rows["size"].iloc[0]
    at = rows.groupby("scale").agg(bound=("bound", "mean"), interpolated=("interpolated", "any"))
    between, low, high = at["interpolated"], means - 100 * at["bound"], means + 100 * at["bound"]
    bounds = f"bounds, size {size}"
    if few:
        lines = (at.index[between], low[between], high[between])
        axes.vlines(*lines, color=colour, linewidth=0.8, label=bounds, zorder=2.5)
    else:
        axes.fill_between(
            at.index, low, high, color=colour, alpha=0.4, linewidth=0, label=bounds, zorder=2.5
        )
    # Hollow markers hide those of the curve; where the curve has none, the measured ones get theirs.
    points = means[between] if few else means[~between]
    axes.plot(
        points.index,
        points,
        linestyle="",
        marker="o",
        markersize=_MARKER,
        color=colour,
        label=f"{'interpolated' if few else 'measured'}, size {size}",
        zorder=4,
        **(style.HOLLOW if few else {}),
    )


def _references(axes: Axes, grid: pd.DataFrame, panel: frames.Panel) -> None:
    scores = frames.reference_scores(grid, "val", panel.model, panel.mode)
    means = scores[scores.index.isin(frames.tasks_of(panel.rows["subset"]))].mean()
    for name, dashes in style.REFERENCE.items():
        if np.isfinite(means[name]):
            axes.axhline(
                100 * means[name],
                color=style.GREY,
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
            s=_area(share.to_numpy()),
            color=colours[int(size)],
            linewidth=0,
            label=f"chosen, size {size}",
        )
    step = -(-len(sizes) // _MANY_SIZES)
    ticks = range(0, len(sizes), step * 2 if len(sizes) > 3 else step)
    axes.set_yticks(list(ticks), [str(sizes[tick]) for tick in ticks])
    axes.set_ylim(len(sizes) - 0.4, -0.6)
    if chosen.empty:
        axes.text(0.5, 0.5, "none chosen yet", ha="center", va="center", transform=axes.transAxes)


def _area(share: Any) -> Any:
    """Return the area in square points of dots for shares of subsets."""
    return 3 + 27 * share


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
        "interpolated, with its bound": {"marker": "o", **style.HOLLOW} if few else {"marker": ""},
    }
    return [
        Line2D([], [], color=style.GREY, markersize=_MARKER, label=words, **look)
        for words, look in looks.items()
    ]


def _legend(colours: dict[int, style.Colour], kinds: list[Line2D]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=colour, label=f"{size} task{'s' if size > 1 else ''}")
        for size, colour in colours.items()
    ]
    marks: dict[str, Any] = {"linestyle": "", "marker": "o", "markeredgewidth": 0}
    dots = [
        Line2D(
            [],
            [],
            color=style.GREY,
            markersize=float(np.sqrt(_area(share))),
            label=f"chosen for {100 * share:.0f} % of subsets",
            **marks,
        )
        for share in _SHARES
    ]
    few = lines if len(lines) <= _MANY_SIZES else []
    return [*few, *style.level_handles(), *kinds, *dots]


def _bar(figure: Figure, axes: np.ndarray, colours: dict[int, style.Colour]) -> None:
    """Say by a colour bar which line is of how many tasks, where they are too many for the legend."""
    sizes = list(colours)
    edges = [sizes[0] - 0.5, *(size + 0.5 for size in sizes)]
    mapped = ScalarMappable(BoundaryNorm(edges, len(sizes)), ListedColormap(list(colours.values())))
    used = [each for each in axes.ravel() if each.figure is not None]
    bar = figure.colorbar(mapped, ax=used, label="tasks merged", fraction=0.05, aspect=40)
    bar.set_ticks(sizes[:: -(-len(sizes) // 10)])
    bar.minorticks_off()
