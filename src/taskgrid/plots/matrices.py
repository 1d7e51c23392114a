"""The one way a matrix of scores is drawn: cells, numbers in them, a colour bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from taskgrid.plots import style

ROW = 0.135
"""Height in inches of a row that holds a number."""


def score_range(values: np.ndarray, step: float = 5.0) -> tuple[float, float]:
    """Return limits on whole steps around the finite values."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 100.0
    low, high = np.floor(finite.min() / step) * step, np.ceil(finite.max() / step) * step
    return float(low), float(high if high > low else low + step)


def draw_cells(
    axes: Axes,
    cells: pd.DataFrame,
    limits: tuple[float, float],
    colours: str,
    room: float,
    *,
    decimals: Sequence[int] = (1, 0),
    signed: bool = False,
) -> QuadMesh:
    """Draw a matrix; missing cells stay blank.

    Args:
        axes: where to draw.
        cells: the values, rows top to bottom.
        limits: the values at the ends of the colour map.
        colours: the colour map's name.
        room: width of a cell in inches.
        decimals: of the numbers printed in the cells; the first that fits. Where none does, none is printed.
        signed: whether gains are printed with a plus.
    """
    values = cells.astype(float)
    numbers = _numbers(values, room, decimals, signed=signed)
    sns.heatmap(
        values,
        ax=axes,
        vmin=limits[0],
        vmax=limits[1],
        cmap=colours,
        cbar=False,
        mask=values.isna().to_numpy(),
        annot=False if numbers is None else numbers,
        fmt="",
        annot_kws={"fontsize": style.SMALLEST},
        linewidths=0.5,
        linecolor="white",
        xticklabels=False,  # named by name_columns and name_rows; seaborn would redraw all to fit them
        yticklabels=False,
    )
    axes.set(xlabel="", ylabel="")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelrotation=0)
    for number in axes.texts:
        number.set_in_layout(False)  # inside a cell: the layout need not measure thousands of them
    mesh = axes.collections[0]
    assert isinstance(mesh, QuadMesh)
    return mesh


def _numbers(
    values: pd.DataFrame, room: float, decimals: Sequence[int], *, signed: bool
) -> np.ndarray | None:
    """Return what is printed in the cells with as many decimals as there is room for."""
    for places in decimals:
        printed = [
            [printed_number(cell, places, signed=signed) for cell in row]
            for row in values.to_numpy()
        ]
        if (
            style.text_width("\n".join(max(row, key=len) for row in printed), style.SMALLEST)
            <= room
        ):
            return np.array(printed)
    return None


def printed_number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Print a number: zero has no sign, and the minus is the one of the axes."""
    if np.isnan(value):
        return ""
    rounded = round(float(value), decimals) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{decimals}f}".replace(
        "-", "\N{MINUS SIGN}"
    )


def colour_bar(figure: Figure, mesh: QuadMesh, axes: list[Axes], text: str = "") -> None:
    """Add a slim colour bar below the axes."""
    bar = figure.colorbar(
        mesh, ax=axes, location="bottom", fraction=0.04, pad=0.02, aspect=30, shrink=0.8, label=text
    )
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=4)
    bar.update_ticks()


def half(square: pd.DataFrame) -> pd.DataFrame:
    """Return what stands below the diagonal of a symmetric matrix: each pair once."""
    below = np.tri(len(square), k=-1, dtype=bool)
    return square.where(below).iloc[1:, :-1]


def name_columns(axes: Axes, names: list[str], room: float, tilt: int = 45) -> None:
    """Label the columns with names, tilted by degrees where ``room`` inches are too few."""
    words = [style.label(name) for name in names]
    style.name_columns(axes, list(np.arange(len(words)) + 0.5), words, room, tilt)


def name_rows(axes: Axes, names: list[str]) -> None:
    """Label the rows with names."""
    axes.set_yticks(np.arange(len(names)) + 0.5, [style.label(name) for name in names])


def width_of_names(names: list[str]) -> float:
    """Return how many inches labels of rows take."""
    return max(style.text_width(style.label(name), style.SMALL) for name in names) + 0.15
