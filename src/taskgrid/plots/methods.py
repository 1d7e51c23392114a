"""Merge methods beside each other: accuracy with intervals, who is tied with the best, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter

from taskgrid.plots import dumbbells, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Merge methods",
    category="Merge methods",
    tables=("comparison/methods", "grid"),
    caption="""
    Mean accuracy on the **test** split of the merge of all tasks by every method, the best on top. Options
    and λ of each were chosen on **validation**. Bars: 95 % intervals by a bootstrap over images; with several
    seeds the mean, and the span of their intervals. Filled: the best of its kind (one model, or more than
    one), or tied with it by a paired test, corrected by Holm. Marks say what the merge itself sees of data;
    ‡ keeps more than one model, † has seen test images. Dashes: zero-shot, and each expert on its own
    task. Right: the same accuracy against the seconds that are spent before λ comes in (statistics,
    learning, preparation) and against what is kept beside the base; named is what nothing cheaper beats.
    """,
)

_SEES = {"nothing": "weights alone", "images": "unlabelled images", "labels": "labelled images"}
_INSTANT = 1e-3
"""Seconds below which costs are drawn alike."""


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw for each model and mode: the methods, and their accuracy against two costs."""
    rows = tables["comparison/methods"]
    if rows.empty:
        return sheet.message("no merge method was compared yet")
    cut = frames.panels(rows)
    lines = [_lines(panel.rows) for panel in cut]
    looks = style.looks(list(_SEES))
    lists = [0.135 * len(each) + 0.5 for each in lines]
    costs = 1.5
    tall = [own + 2 * costs if sheet.narrow else max(2 * costs, own) for own in lists]
    figure = sheet.figure(sum(tall), _handles(lines, looks))
    parts = figure.subfigures(len(cut), 1, height_ratios=tall, squeeze=False)[:, 0]
    for panel, each, own, part in zip(cut, lines, lists, parts, strict=True):
        if sheet.narrow:
            forest, *against = part.subplots(3, 1, height_ratios=[own, costs, costs])
        else:
            grid = part.add_gridspec(2, 2, width_ratios=[1.35, 1])
            forest = part.add_subplot(grid[:, 0])
            against = [part.add_subplot(grid[row, 1]) for row in range(2)]
        _forest(forest, each, looks)
        _references(forest, tables["grid"], panel)
        forest.set_title(panel.title)
        _against(against[0], each, "prepare_seconds", looks, log=True)
        against[0].set_xlabel("seconds before λ")
        _against(against[1], each, "storage_mb", looks, log=False)
        against[1].set_xlabel("kept beside the base [MB]")
    return figure


def _lines(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a line per method in percent, the best first: means over seeds, spans of intervals."""
    lines = (
        rows.sort_values(["method", "seed"])
        .groupby("method", sort=True)
        .agg(
            accuracy=("accuracy", "mean"),
            low=("accuracy_low", "min"),
            high=("accuracy_high", "max"),
            tied=("tied", "all"),
            transductive=("transductive", "any"),
            gives=("gives", "first"),
            sees=("sees", "first"),
            prepare_seconds=("prepare_seconds", "mean"),
            storage_mb=("storage_mb", "mean"),
        )
    )
    lines[["accuracy", "low", "high"]] *= 100
    marks = lines["transductive"].map({True: " †", False: ""})
    several = (lines["gives"] == "model").map({True: "", False: " ‡"})
    lines["name"] = lines.index.map(style.label) + marks + several
    return lines.sort_values("accuracy", ascending=False, kind="stable").reset_index(drop=True)


def _forest(axes: Axes, lines: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    dumbbells.frame(axes, list(lines["name"]), named=True, ticks=6)
    for place, (_, line) in enumerate(lines.iterrows()):
        look = looks[line["sees"]]
        axes.hlines(place, line["low"], line["high"], color=look.colour, linewidth=1.0, zorder=3)
        _mark(axes, line["accuracy"], place, line, look)
    axes.set_xlabel("accuracy on test [%]")


def _mark(axes: Axes, x: float, y: float, line: pd.Series, look: style.Look) -> None:
    axes.plot([x], [y], zorder=4, **look.marks(**({} if line["tied"] else style.HOLLOW)))


def _references(axes: Axes, grid: pd.DataFrame, panel: frames.Panel) -> None:
    if grid.empty:
        return
    levels = 100 * frames.reference_scores(grid, "test", panel.model, panel.mode).mean()
    for name, dashes in style.REFERENCE.items():
        axes.axvline(levels[name], color=style.GREY, linewidth=1.0, linestyle=dashes, zorder=1)


def _against(
    axes: Axes, lines: pd.DataFrame, cost: str, looks: dict[str, style.Look], *, log: bool
) -> None:
    """Draw accuracy against a cost, over decades or not."""
    axes.set_ylabel("accuracy on test [%]")
    known = lines[lines[cost].notna()]
    known = known.assign(cost=known[cost].clip(lower=_INSTANT) if log else known[cost])
    for _, line in known.iterrows():
        _mark(axes, line["cost"], line["accuracy"], line, looks[line["sees"]])
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(style.plain_exponents)
        axes.xaxis.set_minor_formatter(NullFormatter())
    if known.empty:
        return
    # Room for names to the right of the dearest.
    least, most = known["cost"].min(), known["cost"].max()
    axes.set_xlim(*((least / 2, most * 15) if log else (-0.06 * (most or 1), 1.5 * (most or 1))))
    axes.margins(y=0.12)
    for _, line in _undominated(known).iterrows():
        axes.annotate(
            line["name"],
            (line["cost"], line["accuracy"]),
            xytext=(4, 1.5),
            textcoords="offset points",
            fontsize=style.SMALLEST,
            zorder=5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _undominated(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines that nothing cheaper beats, but those too near to another to have a name."""
    ordered = lines.sort_values(["cost", "accuracy"], ascending=[True, False], kind="stable")
    front = ordered[ordered["accuracy"] > ordered["accuracy"].cummax().shift(fill_value=-1.0)]
    span = max(lines["accuracy"].max() - lines["accuracy"].min(), 1e-9)
    kept: list[int] = []
    # From the best down: two names need a tenth of the height between them.
    for index in front.index[::-1]:
        if all(
            abs(front.loc[index, "accuracy"] - front.loc[one, "accuracy"]) > 0.12 * span
            for one in kept
        ):
            kept.append(index)
    return front.loc[kept]


def _handles(lines: Sequence[pd.DataFrame], looks: dict[str, style.Look]) -> list[Line2D]:
    every = pd.concat(lines)
    found = [
        Line2D([], [], label=words, **looks[key].marks())
        for key, words in _SEES.items()
        if (every["sees"] == key).any()
    ]
    marks: dict[str, Any] = {"linestyle": "", "marker": "o", "color": style.GREY}
    found.append(Line2D([], [], label="best or tied", **marks))
    if not every["tied"].all():
        found.append(Line2D([], [], label="worse than the best", **{**marks, **style.HOLLOW}))
    if (every["gives"] != "model").any():
        found.append(Line2D([], [], color="none", label="‡ more than one model"))
    if every["transductive"].any():
        found.append(Line2D([], [], color="none", label="† has seen test images"))
    return [*found, *style.level_handles()]
