"""One look for all figures: sizes of text, and colours, marks and dashes that everybody can tell apart."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from taskgrid.store.atomic import atomic_path

Tables = Mapping[str, pd.DataFrame]
Colour = tuple[float, float, float]
Drawn = ParamSpec("Drawn")

Dashes = Literal["solid"] | tuple[float, Sequence[float]]
"""A dash pattern, as matplotlib takes it."""

PNG_DPI = 200
FAMILY = "DejaVu Sans"  # ships with matplotlib: the same glyphs on every machine
TEXT, SMALL, SMALLEST = 7.0, 6.5, 6.0
"""Sizes of text in points: of what is said, of ticks and legends, and of numbers in cells."""

_LINE = 0.095
"""Inches from one line of small text to the next."""

GREY = "0.25"
"""The colour of what is no category: levels, and what legends say of marks alone."""

LAMBDA_LABEL = "scaling coefficient λ"
REFERENCE: dict[str, Dashes] = {"zero-shot": (0, (1, 1.5)), "experts": (0, (5, 2))}
"""Dash patterns of the two reference levels."""

_SETTINGS: dict[str, Any] = {
    "font.family": FAMILY,
    "mathtext.fontset": "dejavusans",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.titlepad": 4.0,
    "axes.labelpad": 2.5,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "pdf.fonttype": 42,  # TrueType: text in the PDF stays selectable and editable
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}

# Of the colour-blind safe ones those that are seen on white paper.
_COLOURS = tuple(sns.color_palette("colorblind", 10)[at] for at in (0, 1, 2, 3, 4, 5, 7, 9))
# As many as have no divisor in common: marks and dashes make pairs of which 36 differ.
_MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "p")
_DASHES: tuple[Dashes, ...] = ("solid", (0, (3.5, 1)), (0, (3.5, 1, 1, 1)), (0, (1.5, 0.8)))


@dataclass(frozen=True)
class Look:
    """How a category is drawn everywhere: in grey its marker and its dashes tell it apart."""

    colour: Colour
    marker: str
    dashes: Dashes

    def line(self, **more: Any) -> dict[str, Any]:
        """Return the look of a line, as ``plot`` takes it."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes, **more}

    def marks(self, **more: Any) -> dict[str, Any]:
        """Return the look of marks without a line."""
        return self.line(**{"linestyle": "", **more})


HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.8}
"""A mark that is open, laid over a look."""


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the style to everything drawn or saved inside the block."""
    with sns.axes_style("ticks"), mpl.rc_context(cast(Any, _SETTINGS)):
        yield


def styled(draw: Callable[Drawn, Figure]) -> Callable[Drawn, Figure]:
    """Make a ``draw`` function apply the style itself."""

    @wraps(draw)
    def wrapper(*given: Drawn.args, **named: Drawn.kwargs) -> Figure:
        with paper_style():
            return draw(*given, **named)

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


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Return a look for each name, in their order; the first 36 differ in more than the colour."""
    return {
        name: Look(
            _COLOURS[place % len(_COLOURS)],
            _MARKERS[place % len(_MARKERS)],
            _DASHES[place % len(_DASHES)],
        )
        for place, name in enumerate(names)
    }


def ordered_colours(values: Sequence[int]) -> dict[int, Colour]:
    """Return colours from dark to bright for ordered values, all dark enough for white paper."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.86, max(len(values), 2)))
    return {value: cast(Colour, tuple(shades[index][:3])) for index, value in enumerate(values)}


def level_handles(*names: str) -> list[Line2D]:
    """Return what the legend says of the reference levels, of all where none is named."""
    return [
        Line2D([], [], color=GREY, linewidth=1.0, linestyle=REFERENCE[name], label=name)
        for name in names or REFERENCE
    ]


def label(name: str) -> str:
    """Return a name as a person writes it: ``task_arithmetic`` -> ``task arithmetic``."""
    return name.replace("_", " ")


@cache
def text_width(words: str, points: float) -> float:
    """Return how wide the widest line of a text is, in inches."""
    font = FontProperties(family=FAMILY, size=points)
    measure = TextToPath().get_text_width_height_descent
    return max(float(measure(line, font, ismath=False)[0]) / 72 for line in words.split("\n"))


def wrapped(words: str, room: float, points: float = TEXT) -> str:
    """Break a text between words so that no line is wider than ``room`` inches, where that can be."""
    lines: list[str] = []
    for paragraph in words.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and text_width(longer, points) > room:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def name_columns(
    axes: Axes, places: Sequence[float], names: Sequence[str], room: float, tilt: int = 45
) -> None:
    """Name places of the x axis, of which each unit is ``room`` inches wide.

    Names that are wider are tilted by degrees, or upright where they are many; of those that would still
    touch only some are shown, the last always.
    """
    if max((text_width(name, SMALL) for name in names), default=0.0) + 0.06 <= room:
        axes.set_xticks(places, list(names))
        return
    tilt = tilt if room > 2 * _LINE else 90
    kept = [len(places) - 1]
    for at in range(len(places) - 2, -1, -1):
        if (places[kept[-1]] - places[at]) * room >= _LINE:
            kept.append(at)
    axes.set_xticks([places[at] for at in kept[::-1]], [names[at] for at in kept[::-1]])
    axes.tick_params(axis="x", labelrotation=tilt)
    if tilt < 90:
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")


def name_layers(axes: Axes, layers: Sequence[str], room: float) -> None:
    """Name as many layers as ``room`` inches hold along the x axis, the first and the last always."""
    every = -(-len(layers) // max(2, int(room / 0.25)))
    places = [*range(0, len(layers) - every, every), len(layers) - 1]
    name_columns(axes, places, [layers[place] for place in places], 2.1 * _LINE)


def plain_exponents(value: float, _: object = None) -> str:
    """Print a tick's number without a small raised exponent: ``2.5e-5``."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "\N{MINUS SIGN}")


def label_lowest(axes: Sequence[Axes], columns: int, words: str, room: float) -> None:
    """Name the x axis below the lowest panel of each column, in lines of ``room`` inches."""
    for place, each in enumerate(axes):
        lowest = place + columns >= len(axes)
        each.tick_params(labelbottom=lowest)
        each.set_xlabel(wrapped(words, room) if lowest else "")


def hide_unused(axes: Sequence[Axes], used: int) -> None:
    """Remove the axes of a grid that hold no panel."""
    for empty in axes[used:]:
        empty.remove()
