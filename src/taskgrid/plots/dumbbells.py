"""Dumbbells: an open mark and a filled one on a line per task, methods beside one another.

From the base's score (open) to an edited model's (filled); Shapley values share the lines and the marks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from taskgrid.plots import style

SIZE = 4.0
OPEN: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.8}


def largest_first(rows: pd.DataFrame, by: str, value: str) -> list[str]:
    """Return what lines are about, the largest mean value first."""
    means = rows.groupby(by)[value].mean().sort_values(kind="stable")
    return [str(name) for name in means.index[::-1]]


def lanes(
    rows: pd.DataFrame, titles: Mapping[tuple[str, str], str]
) -> Iterator[tuple[pd.DataFrame, float, str]]:
    """Yield each method's rows, how far from the middle of a line its lane runs, and its title.

    Args:
        rows: a panel's rows; a method that has none there keeps its lane, and is not drawn.
        titles: (method, options) -> words, of all panels.
    """
    for place, ((method, options), title) in enumerate(titles.items()):
        own = rows[(rows["method"] == method) & (rows["options"] == options)]
        if not own.empty:
            yield own, (place - (len(titles) - 1) / 2) * 0.6 / len(titles), title


def frame(axes: Axes, names: Sequence[str], *, named: bool, ticks: int = 5) -> None:
    """Draw a line for each name, the first on top, over an axis with so many intervals at most."""
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.955", linewidth=0, zorder=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), list(names) if named else [])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, min_n_ticks=2))


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


def handles(
    colours: dict[str, style.Colour], *, base: str = "zero-shot", unmet: bool = False
) -> list[Line2D]:
    """Return what the legend of dumbbells says."""
    marks: dict[str, Any] = {"linestyle": "", "markersize": SIZE, "color": "0.25"}
    found = [
        Line2D([], [], color=colour, marker="o", markersize=SIZE, label=title)
        for title, colour in colours.items()
    ]
    found.append(Line2D([], [], marker="o", label=base, **marks | OPEN))
    if unmet:
        found.append(Line2D([], [], marker="X", label="not met", **marks))
    return found
