"""How alike base, experts and merges are, layer by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskgrid.plots import frames, matrices, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Similarity of features by layer",
    category="Inside the network",
    tables=("features/similarity",),
    caption="""
    Linear CKA between the class tokens of the base, of each task's own expert and of merges, on
    the same images of the training split, behind some of the blocks and of the features; mean
    over tasks and seeds. Merges are those of the study, each on its own tasks and at the point
    that was chosen for it on **validation**.
    """,
)

_LAYERS = 4
"""Columns of matrices that the page has room for."""

_PRINTED = 5
"""With more networks no number fits into a cell."""


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw a matrix per layer: a row of them per model and mode."""
    rows = tables["features/similarity"]
    rows = rows[rows["chosen"].astype(bool)]
    if rows["cka"].notna().sum() == 0:
        return style.message("no networks were compared yet")
    names = _names(rows)
    cut = frames.panels(rows, [key for key in ("study", "model", "mode") if key in rows])
    shown = [
        {
            layer: _cells(panel.rows[panel.rows["layer"] == layer], names)
            for layer in _layers(panel.rows)
        }
        for panel in cut
    ]
    lowest = min(np.nanmin(cells.to_numpy()) for layers in shown for cells in layers.values())
    limits = (min(float(np.floor(10 * lowest)) / 10, 0.9), 1.0)
    columns = max(map(len, shown))
    side = min(max(0.34 * len(names), 1.15), 1.6)
    figure = style.new_figure(columns * side + 2.2, len(cut) * (side + 0.45) + 0.9)
    axes = figure.subplots(len(cut), columns, squeeze=False)
    for panel, layers, line in zip(cut, shown, axes, strict=True):
        for place, ((layer, cells), each) in enumerate(zip(layers.items(), line, strict=False)):
            decimals = 2 if len(names) <= _PRINTED else None
            mesh = matrices.draw_cells(each, cells, limits, "viridis", decimals)
            each.set_aspect("equal")
            if place == 0:
                matrices.name_rows(each, list(cells.index))
                each.set_title("\n".join(filter(None, (panel.title, layer))), loc="left")
            else:
                each.set_yticks([])
                each.set_title(layer)
            _name_columns(each, list(cells.columns) if panel is cut[-1] else [])
        style.hide_unused(list(line), len(layers))
    used = [each for each in axes.ravel() if each.figure is not None]
    matrices.colour_bar(figure, mesh, used, "linear CKA")
    return figure


def _names(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return words for the base, the expert and each method, in this order."""
    return {
        ("zeroshot", "{}"): "base",
        ("expert", "{}"): "expert",
        **frames.merge_titles(rows),
    }


def _layers(rows: pd.DataFrame) -> list[str]:
    """Return as many layers as there is room for, evenly, the last among them."""
    depths = rows[["depth", "layer"]].drop_duplicates().sort_values("depth")["layer"]
    places = np.linspace(0, len(depths) - 1, min(_LAYERS, len(depths))).round().astype(int)
    return [str(depths.iloc[place]) for place in places]


def _cells(rows: pd.DataFrame, names: dict[tuple[str, str], str]) -> pd.DataFrame:
    one, two = (
        [names[pair] for pair in zip(rows[f"{end}method"], rows[f"{end}options"], strict=True)]
        for end in ("", "other_")
    )
    both = pd.concat(
        [
            pd.DataFrame({"one": one, "two": two, "cka": rows["cka"].astype(float)}),
            pd.DataFrame({"one": two, "two": one, "cka": rows["cka"].astype(float)}),
        ]
    )
    cells = both.pivot_table(index="one", columns="two", values="cka", aggfunc="mean")
    return cells.reindex(index=[*names.values()], columns=[*names.values()])


def _name_columns(axes: Axes, names: list[str]) -> None:
    axes.set_xticks(np.arange(len(names)) + 0.5, names)
    axes.tick_params(axis="x", labelrotation=45)
    for text in axes.get_xticklabels():
        text.set(ha="right", rotation_mode="anchor")
