"""Where task vectors conflict: what pairs of them are to each other, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from taskgrid.plots import curves, frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Conflicts between task vectors",
    category="Task vectors",
    tables=("conflicts",),
    caption="""
    What pairs of task vectors are to each other in every layer, from pixels to features, mean over seeds.
    Cosine; share of weights with equal signs, of those that both tasks moved; share of the strongest left
    singular directions that both have in common, mean over the layer's matrices; and the larger norm by the
    smaller one. Thin: a pair. Thick: the median over pairs. Marked: the pairs with the largest and
    the smallest cosine of whole vectors. Dashed: vectors that have nothing to do with each other
    and are of one size. Weights only: no data split is involved.
    """,
)

_PAIR = ["task_a", "task_b"]
_THIN = "0.75"


@dataclass(frozen=True)
class _Quantity:
    """A row of panels: the words at its axis, and the level of unrelated vectors."""

    column: str
    words: str
    level: float | None
    factor: float = 1.0


_QUANTITIES = (
    _Quantity("cosine", "cosine", 0.0),
    _Quantity("sign_agreement", "equal signs [%]", 50.0, 100.0),
    _Quantity("overlap", "overlap of\ndirections [%]", None, 100.0),
    _Quantity("ratio", "ratio of norms", 1.0),
)


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw every quantity against depth: a row of each, a column per model and mode."""
    table = tables["conflicts"]
    pairs = table[table["task_a"] != table["task_b"]]
    if pairs.empty:
        return sheet.message("fewer than two task vectors: there is no pair to compare")
    norms = pairs["norm_ratio"].astype(float).replace(0.0, np.nan)
    pairs = pairs.assign(ratio=np.maximum(norms, 1 / norms))
    marked = _extremes(pairs)
    cut = frames.panels(pairs)
    figure, axes = curves.frame(sheet, len(_QUANTITIES), len(cut), 0.95, _handles(marked, sheet))
    for column, panel in enumerate(cut):
        rows = panel.rows[panel.rows["layer"] != "all"]
        layers = rows[["depth", "layer"]].drop_duplicates().sort_values("depth")["layer"]
        for quantity, each in zip(_QUANTITIES, axes[:, column], strict=True):
            _draw_lines(each, quantity, rows, marked)
        curves.finish(sheet, axes[:, column], panel.title, [str(layer) for layer in layers])
    for quantity, each in zip(_QUANTITIES, axes[:, 0], strict=True):
        each.set_ylabel(quantity.words)
    figure.align_ylabels(list(axes[:, 0]))
    return figure


def _extremes(pairs: pd.DataFrame) -> dict[tuple[str, str], style.Look]:
    """Return the pairs with the largest and the smallest cosine of whole vectors, with looks."""
    whole = pairs[pairs["layer"] == "all"].dropna(subset=["cosine"])
    means = whole.groupby(_PAIR)["cosine"].mean().sort_values(kind="stable")
    if len(means) < 2:
        return {}
    looks = style.looks(["least", "most"])
    return {means.index[-1]: looks["most"], means.index[0]: looks["least"]}


def _draw_lines(
    axes: Axes,
    quantity: _Quantity,
    rows: pd.DataFrame,
    marked: Mapping[tuple[str, str], style.Look],
) -> None:
    lines = quantity.factor * rows.pivot_table(
        index="depth", columns=_PAIR, values=quantity.column, aggfunc="mean"
    ).astype(float)
    if quantity.level is not None:
        axes.axhline(quantity.level, color="0.4", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    for _, values in lines.items():
        axes.plot(values.index, values, color=_THIN, linewidth=0.4, zorder=2)
    for pair, look in marked.items():
        if pair in lines:
            axes.plot(
                lines.index, lines[pair], zorder=3, **look.line(markersize=2.8, linewidth=1.0)
            )
    if len(lines.columns) > 2:
        axes.plot(lines.index, lines.median(axis=1), color="0.1", linewidth=1.6, zorder=4)


def _handles(marked: Mapping[tuple[str, str], style.Look], sheet: Sheet) -> list[Line2D]:
    handles = [
        Line2D([], [], color="0.1", linewidth=1.6, label="median of pairs"),
        Line2D([], [], color=_THIN, linewidth=0.8, label="a pair"),
    ]
    for said, (pair, look) in zip(("most alike", "least alike"), marked.items(), strict=False):
        names = " and ".join(map(style.label, sheet.ordered(pair)))
        handles.append(Line2D([], [], label=f"{said}: {names}", **look.line()))
    return handles
