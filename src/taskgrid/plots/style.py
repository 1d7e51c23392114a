"""One look for all figures: sizes for a two-column page, colours that everybody can tell apart."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from taskgrid.store.atomic import atomic_path

Tables = Mapping[str, pd.DataFrame]
Colour = tuple[float, float, float]
Draw = Callable[[Tables], Figure]

Dashes = Literal["solid"] | tuple[float, Sequence[float]]
"""A dash pattern, as matplotlib takes it."""

COLUMN = 3.4
"""Width in inches of one column of a two-column page."""
PAGE = 7.0
"""Width in inches of the whole page."""
PNG_DPI = 200

LAMBDA_LABEL = "scaling coefficient λ"
REFERENCE: dict[str, Dashes] = {"zero-shot": (0, (1, 1.5)), "experts": (0, (5, 2))}
"""Dash patterns of the two reference levels."""

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "mathtext.fontset": "dejavusans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "figure.titlesize": 9.0,
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays selectable and editable
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}

_DASHES: tuple[Dashes, ...] = ("solid", (0, (4, 1.5)), (0, (1, 1)))


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the style to everything drawn or saved inside the block."""
    with sns.axes_style("ticks"), mpl.rc_context(cast(Any, _SETTINGS)):
        yield


def styled(draw: Draw) -> Draw:
    """Make a ``draw`` function apply the style itself."""

    @wraps(draw)
    def wrapper(tables: Tables) -> Figure:
        with paper_style():
            return draw(tables)

    return wrapper


def save(figure: Figure, pdf: str | Path, png: str | Path) -> None:
    """Write a figure as PDF and PNG; equal figures give equal bytes (no dates, no versions).

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    undated = {"CreationDate": None, "Creator": "taskgrid", "Producer": None}
    # In memory: what the drawing says of a full disk is that a stream's state is inconsistent.
    as_pdf, as_png = io.BytesIO(), io.BytesIO()
    with paper_style():
        figure.savefig(as_pdf, format="pdf", metadata=undated)
        figure.savefig(as_png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    with atomic_path(pdf) as pdf_path, atomic_path(png) as png_path:
        pdf_path.write_bytes(as_pdf.getbuffer())
        png_path.write_bytes(as_png.getbuffer())


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure (inches), laid out so that nothing overlaps.

    It does not belong to pyplot: no global state, no window, nothing to close.
    """
    return Figure(figsize=(width, height), layout="constrained")


def message(text: str) -> Figure:
    """Return a figure that says in one sentence why there is nothing to draw."""
    figure = new_figure(COLUMN, 1.0)
    axes = figure.add_subplot()
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, transform=axes.transAxes)
    return figure


def category_colours(names: Sequence[str]) -> dict[str, Colour]:
    """Return a colour-blind safe colour for each name; beyond ten they repeat, with other dashes."""
    palette = sns.color_palette("colorblind", 10)
    return {name: palette[index % 10] for index, name in enumerate(names)}


def category_dashes(names: Sequence[str]) -> dict[str, Dashes]:
    """Return the dash pattern that tells names of one colour apart."""
    return {name: _DASHES[(index // 10) % len(_DASHES)] for index, name in enumerate(names)}


def ordered_colours(values: Sequence[int]) -> dict[int, Colour]:
    """Return colours from dark to bright for ordered values, all dark enough for white paper."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.86, max(len(values), 2)))
    return {value: cast(Colour, tuple(shades[index][:3])) for index, value in enumerate(values)}


def label(name: str) -> str:
    """Return a name as a person writes it: ``task_arithmetic`` -> ``task arithmetic``."""
    return name.replace("_", " ")


def tilt_labels(axes: Axes, names: Sequence[str], room: float) -> None:
    """Tilt the labels of the x axis when they are wider than ``room`` inches each."""
    if max((len(name) for name in names), default=0) * 0.068 > room:
        axes.tick_params(axis="x", labelrotation=45)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    else:
        axes.tick_params(axis="x", labelrotation=0)


def name_layers(axes: Axes, layers: Sequence[str]) -> None:
    """Name as many layers as there is room for along the x axis, the first at 0 and the last always."""
    every = -(-len(layers) // 8)
    places = [*range(0, len(layers) - every, every), len(layers) - 1]
    axes.set_xticks(places, [layers[place] for place in places])
    axes.tick_params(axis="x", labelrotation=45)
    for text in axes.get_xticklabels():
        text.set(ha="right", rotation_mode="anchor")


def side_legend(figure: Figure, handles: Sequence[Any], title: str | None = None) -> Legend:
    """Put a legend outside the axes, to their right."""
    return figure.legend(
        handles=list(handles),
        title=title,
        loc="outside right upper",
        alignment="left",
        handlelength=2.2,
        borderaxespad=0.3,
    )


def legend_below(figure: Figure, handles: Sequence[Any], title: str | None = None) -> Legend:
    """Put a legend outside the axes, below them, in as many columns as the page has room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    across = max(1, int(figure.get_figwidth() / (0.55 + 0.068 * longest)))
    return figure.legend(
        handles=list(handles),
        title=title,
        loc="outside lower center",
        ncols=min(across, len(handles)),
        handlelength=2.2,
        borderaxespad=0.3,
    )


def columns_for(panels: int, kinds: int = 1, most: int = 3) -> int:
    """Return how many panels to put side by side.

    Args:
        panels: how many there are.
        kinds: how many methods each model and mode has; they make a row where they fit.
        most: the page has room for.
    """
    if 1 < kinds <= most:
        return kinds
    return 2 if panels == 4 else min(panels, most)


def hide_unused(axes: Sequence[Axes], used: int) -> None:
    """Remove the axes of a grid that hold no panel."""
    for empty in axes[used:]:
        empty.remove()
