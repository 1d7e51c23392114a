"""Where in an image experts and merges give other features than the base."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from taskgrid.plots import frames, style
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Maps of feature norms",
    category="Inside the network",
    tables=("features/norms", "features/pixels"),
    caption="""
    An image of the training split of each task (the first tasks by name, of the smallest seed),
    and norms of what the last block leaves in the residual stream for each of its patches: of
    the base, and of the difference that the task's expert and merges make to it. Bright is
    long; below each map its largest norm. The maps of differences in a row share one scale.
    Merges are those of the study, at the point that was chosen for each on **validation**; at
    most four are shown.
    """,
)

_ROWS = 6
"""Images that the page has room for."""

_MERGES = 4

Map = NDArray[np.float64]


@dataclass(frozen=True)
class _Line:
    """An image with its maps: words -> norms of patches, ``(rows, columns)``, the base first."""

    title: str
    image: NDArray[np.uint8]
    maps: dict[str, Map]


@style.styled
def draw(tables: style.Tables) -> Figure:
    """Draw a row per image: the image, the base, the expert, merges."""
    norms, pixels = tables["features/norms"], tables["features/pixels"]
    if norms.empty or pixels.empty:
        return style.message("no network was looked at yet")
    norms = norms[(norms["part"] == "block") & (norms["token"] > 0) & norms["chosen"].astype(bool)]
    titles = dict(list(frames.merge_titles(norms).items())[:_MERGES])
    by = [key for key in ("study", "model", "mode") if key in norms]
    cut = frames.panels(norms[norms["layer"] != "output"], by)
    lines = [
        line for panel in cut for line in _lines(panel, pixels, titles, max(1, _ROWS // len(cut)))
    ]
    drawn = {words for line in lines for words in line.maps}
    columns = [words for words in ("base", "expert", *titles.values()) if words in drawn]
    figure = style.new_figure(1.0 * len(columns) + 2.5, 1.12 * len(lines) + 0.6)
    axes = figure.subplots(len(lines), len(columns) + 1, squeeze=False)
    for line, row in zip(lines, axes, strict=True):
        _draw_line(line, columns, row, named=line is lines[0])
    return figure


def _lines(
    panel: frames.Panel, pixels: pd.DataFrame, titles: dict[tuple[str, str], str], most: int
) -> Iterator[_Line]:
    """Yield the images of a panel."""
    rows = panel.rows[panel.rows["depth"] == panel.rows["depth"].max()]
    rows = rows[rows["seed"] == rows["seed"].min()]
    for task in sorted(rows["task"].unique())[:most]:
        own = rows[rows["task"] == task]
        same = [key for key in ("study", "model", "mode", "seed", "task") if key in own]
        shown = pixels.merge(own[same].drop_duplicates(), on=same)
        expert = own[own["method"] == "expert"]
        maps = {"base": _grid(expert, "sample_base"), "expert": _grid(expert, "sample_delta")}
        for (method, options), title in titles.items():
            merged = own[(own["method"] == method) & (own["options"] == options)]
            if not merged.empty:
                maps[title] = _grid(merged, "sample_delta")
        title = "\n".join(filter(None, (panel.title, style.label(str(task)))))
        yield _Line(title, _image(shown), maps)


def _grid(rows: pd.DataFrame, column: str) -> Map:
    """Return a value of each patch; where there are several points, of the first."""
    first = rows.sort_values(["subset", "point", "token"], kind="stable").drop_duplicates("token")
    values = first[column].to_numpy(float)
    side = math.isqrt(len(values))
    return values.reshape(side, side)


def _image(pixels: pd.DataFrame) -> NDArray[np.uint8]:
    once = pixels.drop_duplicates(["pixel_y", "pixel_x"]).sort_values(["pixel_y", "pixel_x"])
    size = int(once["pixel_y"].max()) + 1
    colours: NDArray[np.uint8] = once[["red", "green", "blue"]].to_numpy(np.uint8)
    return colours.reshape(size, -1, 3)


def _draw_line(
    line: _Line, columns: Sequence[str], axes: NDArray[np.object_], *, named: bool
) -> None:
    first, *others = axes
    first.imshow(line.image, interpolation="nearest")
    first.set_ylabel(line.title, rotation=0, ha="right", va="center")
    _bare(first, "image" if named else "")
    longest = max(grid.max() for words, grid in line.maps.items() if words != "base")
    for words, each in zip(columns, others, strict=True):
        _bare(each, textwrap.fill(words, 13) if named else "")
        # A run without this merge has nothing in its column.
        if (grid := line.maps.get(words)) is not None:
            top = grid.max() if words == "base" else longest
            each.imshow(grid, vmin=0, vmax=top or 1.0, cmap="magma", interpolation="nearest")
            each.set_xlabel(f"{grid.max():.3g}", fontsize=6.5, labelpad=1.5)


def _bare(axes: Axes, title: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.set_title(title)
    for spine in axes.spines.values():
        spine.set_visible(False)
