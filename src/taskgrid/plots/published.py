"""The run beside the literature's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from taskgrid.lattice.subsets import parse_subset
from taskgrid.plots import frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="The run beside published numbers",
    category="Published numbers",
    tables=("published",),
    caption="""
    Accuracy on the **test** split, of the run (black, with 95 % intervals) and as published
    (coloured: one mark per source, the sources of one lineage joined by a line), for zero-shot,
    the experts, and the merges of the papers' sets of tasks under the same rule for λ. With
    several seeds: their mean, and the span of their intervals. A red ring: a published zero-shot
    accuracy that the run's differs from by more than chance, so test images, class names,
    preprocessing or weights are not the same; the note in ``results/tables/published.csv`` says
    more.
    """,
)

_MARKERS = "XsD^vP*"
_SIZE = 3.4
_ACROSS = 4
_RUN = "0.1"
_RING: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "markersize": 7.0,
    "markerfacecolor": "none",
    "markeredgecolor": "#c1121f",
    "markeredgewidth": 1.1,
}
_AVERAGE = "average"
_CHOSEN = ("val", "unstated")


class _Panel(NamedTuple):
    """What one panel compares, and the words above it."""

    title: str
    rows: pd.DataFrame


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw every task's accuracy beside the published ones: panels for what was measured."""
    table = tables["published"]
    rows = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
    if rows.empty:
        return style.message("no published number stands beside this run")
    rows = rows.assign(label=_labels(rows), problem=rows["problem"].astype(bool))
    lineages = sorted(rows["lineage"].unique())
    lines = [line for section in _sections(rows) for line in _lines(section)]
    across = max(len(line) for line in lines)
    heights = [_height(line, len(lineages)) for line in lines]
    figure = style.new_figure(
        min(style.PAGE, 1.3 + 1.9 * across), sum(heights) + 0.75 * len(lines) + 0.45
    )
    axes = figure.subplots(len(lines), across, squeeze=False, height_ratios=heights)
    for line, row in zip(lines, axes, strict=True):
        labels = _order(pd.concat([panel.rows for panel in line]))
        for place, (panel, each) in enumerate(zip(line, row, strict=False)):
            _draw_panel(each, panel, labels, lineages)
            each.tick_params(axis="y", length=0, labelleft=place == 0)
        style.hide_unused(list(row), len(line))
    style.legend_below(figure, _handles(lineages, bool(rows["problem"].any())))
    return figure


def _labels(rows: pd.DataFrame) -> pd.Series[str]:
    sizes = rows["subset"].astype(str).map(lambda name: len(parse_subset(name)))
    means = "mean of " + sizes.astype(str)
    return rows["task"].map(style.label).where(rows["task"] != _AVERAGE, means)


def _order(rows: pd.DataFrame) -> list[str]:
    """Return the names of the lines from top to bottom: tasks by name, then means by size."""
    is_mean = rows["task"] == _AVERAGE
    means = sorted(rows.loc[is_mean, "label"].unique(), key=lambda text: int(text.split()[-1]))
    return [*sorted(rows.loc[~is_mean, "label"].unique()), *means]


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


def _lines(section: list[_Panel]) -> list[list[_Panel]]:
    return [section[start : start + _ACROSS] for start in range(0, len(section), _ACROSS)]


def _height(line: list[_Panel], lineages: int) -> float:
    labels = _order(pd.concat([panel.rows for panel in line]))
    return len(labels) * max(0.17, 0.07 * (lineages + 1) + 0.03) + 0.1


def _draw_panel(axes: Axes, panel: _Panel, labels: Sequence[str], lineages: Sequence[str]) -> None:
    step = 0.72 / (len(lineages) + 1)
    colours = style.category_colours(lineages)
    for place, label in enumerate(labels):
        if place % 2 == 0:
            axes.axhspan(place - 0.5, place + 0.5, color="0.955", linewidth=0, zorder=0)
        rows = panel.rows[panel.rows["label"] == label]
        if rows.empty:
            continue
        top = place - 0.36 + step / 2
        _draw_run(axes, rows, top)
        for slot, lineage in enumerate(lineages, start=1):
            mine = rows[rows["lineage"] == lineage].drop_duplicates("published")
            values = 100 * mine["published"]
            if values.empty:
                continue
            colour, y = colours[lineage], top + slot * step
            axes.plot([values.min(), values.max()], [y, y], color=colour, linewidth=0.8, zorder=3)
            axes.plot(
                sorted(values),
                [y] * len(values),
                color=colour,
                linestyle="",
                marker=_marker(slot),
                markersize=_SIZE,
                label=f"{lineage}: {label}",
                zorder=3,
            )
            rings = values[mine["problem"]]
            axes.plot(rings, [y] * len(rings), label=f"problem: {label}", zorder=4, **_RING)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel("accuracy on test [%]")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
    axes.margins(x=0.08)


def _draw_run(axes: Axes, rows: pd.DataFrame, y: float) -> None:
    seeds = rows.drop_duplicates(["mode", "seed", "run"])
    middle = 100 * float(seeds["run"].mean())
    low, high = 100 * float(seeds["run_low"].min()), 100 * float(seeds["run_high"].max())
    axes.plot([low, high], [y, y], color=_RUN, linewidth=1.6, solid_capstyle="butt", zorder=3)
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


def _marker(slot: int) -> str:
    return _MARKERS[slot % len(_MARKERS)]


def _handles(lineages: Sequence[str], problem: bool) -> list[Line2D]:
    looks = [(_RUN, "o", 1.6, "this run")]
    colours = style.category_colours(lineages)
    for slot, lineage in enumerate(lineages, start=1):
        looks.append((to_hex(colours[lineage]), _marker(slot), 0.8, style.label(lineage)))
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=_SIZE, linewidth=width, label=words)
        for colour, marker, width, words in looks
    ]
    return [*handles, Line2D([], [], label="lineage problem", **_RING)] if problem else handles
