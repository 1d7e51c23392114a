"""Dumbbells: from the base's score (open) to another model's (filled), one line per thing edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from taskgrid.plots import style

SIZE = 4.0
OPEN: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.8}


def lane(place: int, lanes: int) -> float:
    """Return how far from the middle of a line the lane of the ``place``-th method runs."""
    return (place - (lanes - 1) / 2) * 0.6 / lanes


def frame(axes: Axes, names: Sequence[str], *, named: bool) -> None:
    """Draw a line for each name, the first on top."""
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.955", linewidth=0, zorder=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), list(names) if named else [])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2))


def draw_between(
    axes: Axes,
    y: Sequence[float],
    base: pd.Series,
    model: pd.Series,
    colour: style.Colour,
    title: str,
    met: Sequence[bool],
) -> None:
    """Draw scores of the base and of a model, in percent; a choice that is not met is a cross."""
    before, after = 100 * base.to_numpy(float), 100 * model.to_numpy(float)
    axes.hlines(y, before, after, color=colour, linewidth=1.2, zorder=2)
    marks: dict[str, Any] = {"linestyle": "", "markersize": SIZE, "color": colour}
    axes.plot(before, y, marker="o", label=f"{title}: zero-shot", zorder=3, **marks | OPEN)
    for wanted, marker in ((True, "o"), (False, "X")):
        at = [place for place, one in enumerate(met) if bool(one) is wanted]
        if at:
            axes.plot(
                after[at],
                [y[place] for place in at],
                marker=marker,
                label=f"{title}: {'chosen' if wanted else 'not met'}",
                zorder=4,
                **marks,
            )


def draw_interval(
    axes: Axes, y: Sequence[float], low: pd.Series, high: pd.Series, colour: style.Colour
) -> None:
    """Draw intervals, in percent, behind the marks."""
    axes.hlines(y, 100 * low, 100 * high, color=colour, linewidth=4.0, alpha=0.3, zorder=1)


def handles(colours: dict[str, style.Colour], *, unmet: bool) -> list[Line2D]:
    """Return what the legend of dumbbells says."""
    marks: dict[str, Any] = {"linestyle": "", "markersize": SIZE, "color": "0.25"}
    found = [
        Line2D([], [], color=colour, marker="o", markersize=SIZE, label=title)
        for title, colour in colours.items()
    ]
    found.append(Line2D([], [], marker="o", label="zero-shot", **marks | OPEN))
    if unmet:
        found.append(Line2D([], [], marker="X", label="not met", **marks))
    return found
