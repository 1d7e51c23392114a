"""How fine-tuning went."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import curves, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Training curves",
    category="Experts",
    tables=("history",),
    caption="""
    Fine-tuning of each expert, step by step: training loss (running median of a twentieth of
    the run), accuracy on the **validation** split, and learning rate; a schedule that several
    tasks share is drawn once, in grey. With several seeds the line is their mean and the band
    spans them.
    """,
)

_LOSS, _ACCURACY, _RATE = "train/loss", "val/accuracy", "train/lr"
# Metric of the history table -> words on the axis, factor to the axis' unit.
_METRICS = {
    _LOSS: ("training loss [nats]", 1.0),
    _ACCURACY: ("accuracy on validation [%]", 100.0),
    _RATE: ("learning rate", 1.0),
}
_MARKS = 6
"""Marks on a line of many steps."""
_SHARED = style.Look((0.25, 0.25, 0.25), "", "solid")


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw loss, validation accuracy and learning rate: side by side, or a row of each."""
    history = tables["history"]
    measured = [metric for metric in _METRICS if (history["metric"] == metric).any()]
    if not measured:
        return sheet.message("no training history was recorded yet")
    looks = style.looks(sheet.ordered(history["task"]))
    cut = frames.panels(history)
    handles = [
        Line2D([], [], label=style.label(task), **look.line()) for task, look in looks.items()
    ]
    figure, axes = curves.frame(sheet, len(measured), len(cut), 1.25, handles)
    for column, panel in enumerate(cut):
        for each, metric in zip(axes[:, column], measured, strict=True):
            rows = panel.rows[panel.rows["metric"] == metric]
            seeds = {
                task: _seeds(own, metric)
                for task in looks
                if not (own := rows[rows["task"] == task]).empty
            }
            alike = _alike(seeds) if metric == _RATE else [[task] for task in seeds]
            for place, tasks in enumerate(alike):
                look = looks[tasks[0]] if len(tasks) == 1 else _SHARED
                words = " = ".join(tasks)
                _draw(each, seeds[tasks[0]], words, look, place / len(alike))
            if metric != _ACCURACY:
                each.set_ylim(bottom=0)
            each.margins(x=0.02)
            if each.get_subplotspec().is_last_row():
                each.set_xlabel("training step")
            if metric == _RATE:
                each.yaxis.set_major_formatter(style.plain_exponents)
        curves.finish(sheet, axes[:, column], panel.title)
    for each, metric in zip(axes[:, 0], measured, strict=True):
        each.set_ylabel(_METRICS[metric][0])
    figure.align_ylabels(list(axes[:, 0]))
    return figure


def _seeds(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a task's curve, a column per seed, in the unit of the axis; a loss is smoothed."""
    seeds = rows.pivot_table(index="step", columns="seed", values="value", aggfunc="mean")
    if metric == _LOSS:
        window = max(len(seeds) // 20, 1)
        seeds = seeds.rolling(window, center=True, min_periods=1).median()
    return _METRICS[metric][1] * seeds


def _alike(seeds: dict[str, pd.DataFrame]) -> list[list[str]]:
    """Return tasks in groups that share one curve."""
    groups: list[list[str]] = []
    for task, curve in seeds.items():
        for group in groups:
            if seeds[group[0]].equals(curve):
                group.append(task)
                break
        else:
            groups.append([task])
    return groups


def _draw(axes: Axes, seeds: pd.DataFrame, words: str, look: style.Look, phase: float) -> None:
    mean = seeds.mean(axis=1)
    # Marks of curves that run together stand beside one another.
    every = (phase / _MARKS, 1 / _MARKS) if len(mean) > 3 * _MARKS else None
    axes.plot(
        mean.index, mean, label=words, **look.line(markevery=every, markersize=2.8, linewidth=1.0)
    )
    if seeds.shape[1] > 1:
        low, high = seeds.min(axis=1), seeds.max(axis=1)
        axes.fill_between(seeds.index, low, high, color=look.colour, alpha=0.15, linewidth=0)
