"""The run beside the literature's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.lattice.subsets import parse_subset
from taskgrid.plots import dumbbells, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="The run beside published numbers",
    category="Published numbers",
    tables=("published",),
    caption="""
    Accuracy on the **test** split, of the run (black, with 95 % intervals) and as published
    (one mark per source, the sources of one lineage joined by a line), for zero-shot,
    the experts, and the merges of the papers' sets of tasks under the same rule for λ. With
    several seeds: their mean, and the span of their intervals. A red ring: a published zero-shot
    accuracy that the run's differs from by more than chance, so test images, class names,
    preprocessing or weights are not the same; the note in ``results/tables/published.csv`` says
    more.
    """,
)

_SIZE = 3.2
_RUN = "0.1"
_RING: dict[str, Any] = {
    "color": "#c1121f",
    "linestyle": "",
    "marker": "o",
    "markersize": 6.5,
    "markerfacecolor": "none",
    "markeredgewidth": 1.1,
}
_AVERAGE = "average"
_CHOSEN = ("val", "unstated")


class _Panel(NamedTuple):
    """What one panel compares, and the words above it."""

    title: str
    rows: pd.DataFrame


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw every task's accuracy beside the published ones: panels for what was measured."""
    table = tables["published"]
    rows = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
    if rows.empty:
        return sheet.message("no published number stands beside this run")
    names = sheet.ordered(rows.loc[rows["task"] != _AVERAGE, "task"])
    rows = rows.assign(label=_labels(rows), problem=rows["problem"].astype(bool))
    lineages = sorted(rows["lineage"].unique())
    # The run's own look is the first, and black.
    looks = dict(zip(lineages, [*style.looks(["", *lineages]).values()][1:], strict=True))
    most = 2 if sheet.narrow else 4
    lines = [
        section[start : start + most]
        for section in _sections(rows)
        for start in range(0, len(section), most)
    ]
    orders = [_order(pd.concat([panel.rows for panel in line]), names) for line in lines]
    heights = [dumbbells.height(len(order), len(lineages) + 1) for order in orders]
    legend = _handles(looks, bool(rows["problem"].any()))
    figure = sheet.figure(sum(heights) + 0.7 * len(lines), legend)
    axes = figure.subplots(len(lines), most, squeeze=False, height_ratios=heights)
    for line, order, row in zip(lines, orders, axes, strict=True):
        for place, (panel, each) in enumerate(zip(line, row, strict=False)):
            dumbbells.frame(each, order, named=place == 0, ticks=4)
            _draw_panel(each, panel, order, looks)
            each.set_title(style.wrapped(panel.title, (sheet.inches - 0.8) / most), loc="left")
            each.set_xlabel("accuracy on test [%]")
        style.hide_unused(list(row), len(line))
    return figure


def _labels(rows: pd.DataFrame) -> pd.Series[str]:
    sizes = rows["subset"].astype(str).map(lambda name: len(parse_subset(name)))
    means = "mean of " + sizes.astype(str)
    return rows["task"].map(style.label).where(rows["task"] != _AVERAGE, means)


def _order(rows: pd.DataFrame, tasks: Sequence[str]) -> list[str]:
    """Return the names of the lines from top to bottom: tasks in their order, then means by size."""
    there = set(rows["label"])
    means = sorted(
        set(rows.loc[rows["task"] == _AVERAGE, "label"]), key=lambda text: int(text.split()[-1])
    )
    return [*(name for task in tasks if (name := style.label(task)) in there), *means]


def _sections(rows: pd.DataFrame) -> list[list[_Panel]]:
    """Return the panels of each model and mode: zero-shot, experts, then the merges."""
    zeroshot = rows[rows["method"] == "zeroshot"]
    trained = rows[rows["method"] != "zeroshot"]
    alone = zeroshot[~zeroshot["model"].isin(trained["model"])]
    sections = []
    for part in frames.panels(pd.concat([trained, alone])):
        panels = [_Panel("zero-shot", zeroshot[zeroshot["model"] == part.model])]
        panels.append(_Panel("experts", part.rows[part.rows["method"] == "expert"]))
        merged = part.rows[~part.rows["method"].isin(frames.REFERENCE_METHODS)]
        if not merged.empty:
            panels += _merges(merged)
        panels = [panel for panel in panels if not panel.rows.empty]
        first = panels[0]
        words = "\n".join(filter(None, [part.title, first.title]))
        sections.append([first._replace(title=words), *panels[1:]])
    return sections


def _merges(rows: pd.DataFrame) -> list[_Panel]:
    """Return a panel per method, set of tasks and rule for lambda: one number of the run per task."""
    titles = frames.method_titles(rows)
    sizes = rows["subset"].astype(str).map(lambda name: len(parse_subset(name)))
    rules = rows["lambda_rule"].fillna("").astype(str)
    fixed = rules.where(~rules.isin(_CHOSEN), "")
    panels = []
    for (method, options), title in titles.items():
        same = (rows["method"] == method) & (rows["options"].astype(str) == options)
        for size, rule in sorted(set(zip(sizes[same], fixed[same], strict=True))):
            words = [f"{size} tasks"] if sizes.nunique() > 1 else []
            words += [f"λ = {rule}"] if rule else []
            lines = "\n".join(filter(None, [title, ", ".join(words)]))
            panels.append(_Panel(lines, rows[same & (sizes == size) & (fixed == rule)]))
    return panels


def _draw_panel(
    axes: Axes, panel: _Panel, labels: Sequence[str], looks: dict[str, style.Look]
) -> None:
    step = 0.72 / (len(looks) + 1)
    for place, label in enumerate(labels):
        rows = panel.rows[panel.rows["label"] == label]
        if rows.empty:
            continue
        top = place - 0.36 + step / 2
        _draw_run(axes, rows, top)
        for slot, (lineage, look) in enumerate(looks.items(), start=1):
            mine = rows[rows["lineage"] == lineage].drop_duplicates("published")
            values, y = 100 * mine["published"].sort_values(), top + slot * step
            if values.empty:
                continue
            own = look.line(linestyle="solid", linewidth=0.8, markersize=_SIZE)
            axes.plot(values, [y] * len(values), label=f"{lineage}: {label}", zorder=3, **own)
            rings = 100 * mine.loc[mine["problem"], "published"]
            axes.plot(rings, [y] * len(rings), label=f"problem: {label}", zorder=4, **_RING)
    axes.margins(x=0.08)


def _draw_run(axes: Axes, rows: pd.DataFrame, y: float) -> None:
    seeds = rows.drop_duplicates(["mode", "seed", "run"])
    middle = 100 * float(seeds["run"].mean())
    low, high = 100 * float(seeds["run_low"].min()), 100 * float(seeds["run_high"].max())
    axes.plot([low, high], [y, y], color=_RUN, linewidth=1.4, solid_capstyle="butt", zorder=3)
    axes.plot(
        [middle],
        [y],
        linestyle="",
        marker="o",
        markersize=_SIZE,
        color=_RUN,
        label=f"run: {rows['label'].iloc[0]}",
        zorder=4,
    )


def _handles(looks: dict[str, style.Look], problem: bool) -> list[Line2D]:
    own = {"markersize": _SIZE, "linewidth": 0.8, "linestyle": "solid"}
    handles = [
        Line2D([], [], color=_RUN, marker="o", markersize=_SIZE, linewidth=1.4, label="this run"),
        *(
            Line2D([], [], label=style.label(lineage), **look.line(**own))
            for lineage, look in looks.items()
        ),
    ]
    return [*handles, Line2D([], [], label="lineage problem", **_RING)] if problem else handles
