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


def height(lines: int, methods: int, least: float = 0.17) -> float:
    """Return how many inches so many lines take, with a lane for each method."""
    return lines * max(least, 0.085 * methods + 0.05)


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
    look: style.Look,
    title: str,
    met: Sequence[bool],
) -> None:
    """Draw scores of the base and of a model, in percent; a choice that is not met is a cross."""
    before, after = 100 * base.to_numpy(float), 100 * model.to_numpy(float)
    axes.hlines(y, before, after, color=look.colour, linewidth=1.0, zorder=2)
    axes.plot(before, y, label=f"{title}: zero-shot", zorder=3, **look.marks(**style.HOLLOW))
    for wanted, marker in ((True, look.marker), (False, "X")):
        at = [place for place, one in enumerate(met) if bool(one) is wanted]
        if at:
            words = f"{title}: {'chosen' if wanted else 'not met'}"
            own = [y[place] for place in at]
            axes.plot(after[at], own, label=words, zorder=4, **look.marks(marker=marker))


def draw_interval(
    axes: Axes, y: Sequence[float], low: pd.Series, high: pd.Series, look: style.Look
) -> None:
    """Draw intervals, in percent, behind the marks."""
    axes.hlines(y, 100 * low, 100 * high, color=look.colour, linewidth=3.5, alpha=0.3, zorder=1)


def handles(
    looks: Mapping[str, style.Look], *, base: str = "zero-shot", unmet: bool = False
) -> list[Line2D]:
    """Return what the legend of dumbbells says."""
    marks: dict[str, Any] = {"linestyle": "", "color": style.GREY}
    found = [Line2D([], [], label=title, **look.marks()) for title, look in looks.items()]
    found.append(Line2D([], [], marker="o", label=base, **marks, **style.HOLLOW))
    if unmet:
        found.append(Line2D([], [], marker="X", label="not met", **marks))
    return found
