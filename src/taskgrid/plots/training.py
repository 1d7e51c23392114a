"""How fine-tuning went."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Training curves",
    category="Experts",
    tables=("history",),
    caption="""
    Fine-tuning of each expert, step by step: training loss (running median of a twentieth of
    the run, single steps faint), learning rate, and accuracy on the **validation** split. With
    several seeds the line is their mean and the band spans them.
    """,
)

# Metric of the history table -> words on the axis, factor to the axis' unit.
_METRICS = {
    "train/loss": ("training loss [nats]", 1.0),
    "train/lr": ("learning rate", 1.0),
    "val/accuracy": ("accuracy on validation [%]", 100.0),
}
_FAINT_TASKS = 8


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw loss, learning rate and validation accuracy: a row per model and mode."""
    history = tables["history"]
    measured = [metric for metric in _METRICS if (history["metric"] == metric).any()]
    if not measured:
        return style.message("no training history was recorded yet")
    tasks = frames.task_order(history["task"])
    colours, dashes = style.category_colours(tasks), style.category_dashes(tasks)
    cut = frames.panels(history)
    below = 0.2 + 0.17 * (1 + len(tasks) // 5)
    figure = style.new_figure(style.PAGE if len(measured) > 1 else 4.6, 2.1 * len(cut) + below)
    axes = figure.subplots(len(cut), len(measured), squeeze=False)
    for row, panel in enumerate(cut):
        for column, metric in enumerate(measured):
            each = axes[row, column]
            words, factor = _METRICS[metric]
            values = panel.rows[panel.rows["metric"] == metric]
            for task in tasks:
                part = values[values["task"] == task]
                if not part.empty:
                    smooth = metric == "train/loss"
                    faint = smooth and len(tasks) <= _FAINT_TASKS
                    _curve(each, part, factor, task, colours[task], dashes[task], smooth, faint)
            each.set_ylabel(words)
            each.set_ylim(bottom=0)
            each.margins(x=0.02)
            if row == len(cut) - 1:
                each.set_xlabel("training step")
            if column == 0 and panel.title:
                each.set_title(panel.title, loc="left")
            if metric == "train/lr":
                each.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
                each.yaxis.get_offset_text().set_fontsize(7)
    handles = [
        Line2D([], [], color=colours[task], linestyle=dashes[task], label=style.label(task))
        for task in tasks
    ]
    style.legend_below(figure, handles)
    return figure


def _curve(
    axes: Axes,
    rows: pd.DataFrame,
    factor: float,
    task: str,
    colour: style.Colour,
    dashes: style.Dashes,
    smooth: bool,
    faint: bool,
) -> None:
    seeds = factor * rows.pivot_table(index="step", columns="seed", values="value", aggfunc="mean")
    mean = seeds.mean(axis=1)
    if smooth:
        if faint:
            axes.plot(
                mean.index, mean, color=colour, alpha=0.18, linewidth=0.5, label=f"{task}: steps"
            )
        window = max(len(mean) // 20, 1)
        seeds = seeds.rolling(window, center=True, min_periods=1).median()
        mean = seeds.mean(axis=1)
    marker = "o" if len(mean) <= 31 else ""
    axes.plot(
        mean.index,
        mean,
        color=colour,
        linestyle=dashes,
        linewidth=1.2,
        marker=marker,
        markersize=2.2,
        label=task,
    )
    if seeds.shape[1] > 1:
        axes.fill_between(
            seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, linewidth=0
        )
