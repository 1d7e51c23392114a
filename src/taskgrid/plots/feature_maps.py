"""Where in an image experts and merges give other features than the base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from taskgrid.plots import frames, style
from taskgrid.plots.sheet import Sheet
from taskgrid.plugins.cards import FigureCard

CARD = FigureCard(
    title="Maps of feature norms",
    category="Inside the network",
    tables=("features/norms", "features/pixels"),
    caption="""
    An image of the training split of each task (the first tasks, of the smallest seed),
    and norms of what the last block leaves in the residual stream for each of its patches: of
    the base, and of the difference that the task's expert and merges make to it. Bright is
    long; below each map its largest norm. The maps of differences in a row share one scale.
    Merges are those of the study, at the point that was chosen for each on **validation**; at
    most four are shown, in a column two.
    """,
)

_ROWS = 6
"""Images that the page has room for."""

_MERGES = {"column": 2, "page": 4}

Map = NDArray[np.float64]


@dataclass(frozen=True)
class _Line:
    """An image with its maps: words -> norms of patches, ``(rows, columns)``, the base first."""

    title: str
    image: NDArray[np.uint8]
    maps: dict[str, Map]


@style.styled
def draw(tables: style.Tables, sheet: Sheet) -> Figure:
    """Draw a row per image: the image, the base, the expert, merges."""
    norms, pixels = tables["features/norms"], tables["features/pixels"]
    if norms.empty or pixels.empty:
        return sheet.message("no network was looked at yet")
    norms = norms[(norms["part"] == "block") & (norms["token"] > 0) & norms["chosen"].astype(bool)]
    titles = dict(list(frames.merge_titles(norms).items())[: _MERGES[sheet.width]])
    cut = frames.panels(norms[norms["layer"] != "output"])
    tasks = sheet.ordered(norms["task"])[: max(1, _ROWS // len(cut))]
    lines = [line for panel in cut for line in _lines(panel, pixels, titles, tasks)]
    drawn = {words for line in lines for words in line.maps}
    columns = [words for words in ("base", "expert", *titles.values()) if words in drawn]
    names = max(style.text_width(line.title, style.TEXT) for line in lines) + 0.1
    room = min((sheet.inches - names) / (len(columns) + 1) - 0.05, 0.95)
    heads = max(style.wrapped(title, room).count("\n") + 1 for title in titles.values())
    figure = sheet.figure(len(lines) * (room + 0.22) + 0.13 * heads)
    axes = figure.subplots(len(lines), len(columns) + 1, squeeze=False)
    for line, row in zip(lines, axes, strict=True):
        _draw_line(line, columns, row, room, named=line is lines[0])
    return figure


def _lines(
    panel: frames.Panel, pixels: pd.DataFrame, titles: dict[tuple[str, str], str], tasks: list[str]
) -> Iterator[_Line]:
    """Yield the images of a panel."""
    rows = panel.rows[panel.rows["depth"] == panel.rows["depth"].max()]
    rows = rows[rows["seed"] == rows["seed"].min()]
    for task in tasks:
        own = rows[rows["task"] == task]
        if own.empty:
            continue
        same = [key for key in ("study", "model", "mode", "seed", "task") if key in own]
        shown = pixels.merge(own[same].drop_duplicates(), on=same)
        expert = own[own["method"] == "expert"]
        maps = {"base": _grid(expert, "sample_base"), "expert": _grid(expert, "sample_delta")}
        for (method, options), title in titles.items():
            merged = own[(own["method"] == method) & (own["options"] == options)]
            if not merged.empty:
                maps[title] = _grid(merged, "sample_delta")
        title = "\n".join([*filter(None, panel.title.split(" · ")), style.label(task)])
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
    line: _Line, columns: Sequence[str], axes: NDArray[np.object_], room: float, *, named: bool
) -> None:
    first, *others = axes
    first.imshow(line.image, interpolation="nearest")
    first.set_ylabel(line.title, rotation=0, ha="right", va="center")
    _bare(first, "image" if named else "")
    longest = max(grid.max() for words, grid in line.maps.items() if words != "base")
    for words, each in zip(columns, others, strict=True):
        _bare(each, style.wrapped(words, room) if named else "")
        # A run without this merge has nothing in its column.
        if (grid := line.maps.get(words)) is not None:
            top = grid.max() if words == "base" else longest
            each.imshow(grid, vmin=0, vmax=top or 1.0, cmap="magma", interpolation="nearest")
            each.set_xlabel(f"{grid.max():.3g}", fontsize=style.SMALLEST, labelpad=1.5)


def _bare(axes: Axes, title: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.set_title(title)
    for spine in axes.spines.values():
        spine.set_visible(False)
