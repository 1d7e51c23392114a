"""How alike base, experts and merges are, layer by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from taskgrid.plots import frames, matrices, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Similarity of features by layer",
    category="Inside the network",
    tables=("features/similarity",),
    caption="""
    Linear CKA between the class tokens of the base, of each task's own expert and of merges, on
    the same images of the training split, behind some of the blocks and of the features; mean
    over tasks and seeds; each pair once. Merges are those of the study, each on its own tasks
    and at the point that was chosen for it on **validation**.
    """,
)

_LAYERS = 4
"""Layers that a page has room for."""


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw a matrix per layer: a row of them per model and mode."""
    rows = tables["features/similarity"]
    rows = rows[rows["chosen"].astype(bool)]
    if rows["cka"].notna().sum() == 0:
        return sheet.message("no networks were compared yet")
    names = _names(rows)
    beside = matrices.width_of_names([*names.values()])
    cut = frames.panels(rows)
    # A row that holds a number, and names that stand tilted side by side.
    least = max(matrices.ROW * (len(names) - 1), 0.6)
    most = max(1, min(_LAYERS, int((sheet.inches - beside) / (least + 0.1))))
    shown = [
        {
            layer: _cells(panel.rows[panel.rows["layer"] == layer], names)
            for layer in _layers(panel.rows, most)
        }
        for panel in cut
    ]
    lowest = min(np.nanmin(cells.to_numpy()) for layers in shown for cells in layers.values())
    limits = (min(float(np.floor(10 * lowest)) / 10, 0.9), 1.0)
    columns = max(map(len, shown))
    side = min((sheet.inches - beside) / columns - 0.1, max(0.36 * len(names), 1.0))
    figure = sheet.figure(len(cut) * (side + 0.35) + beside + 0.4)
    axes = figure.subplots(len(cut), columns, squeeze=False)
    for panel, layers, line in zip(cut, shown, axes, strict=True):
        for place, ((layer, cells), each) in enumerate(zip(layers.items(), line, strict=False)):
            room = side / len(cells)
            mesh = matrices.draw_cells(each, cells, limits, "viridis", room, decimals=(2,))
            each.set_aspect("equal")
            matrices.name_rows(each, list(cells.index) if place == 0 else [])
            words = "\n".join(filter(None, (panel.title if place == 0 else "", layer)))
            each.set_title(style.wrapped(words, side), loc="left")
            if panel is cut[-1]:
                matrices.name_columns(each, list(cells.columns), room, tilt=90)
            else:
                each.set_xticks([])
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


def _layers(rows: pd.DataFrame, most: int) -> list[str]:
    """Return ``most`` layers, evenly, the last among them."""
    depths = rows[["depth", "layer"]].drop_duplicates().sort_values("depth")["layer"]
    count = min(most, len(depths))
    places = np.linspace(len(depths) - 1, 0, count).round().astype(int)[::-1]
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
    square = cells.reindex(index=[*names.values()], columns=[*names.values()])
    return matrices.half(square)
