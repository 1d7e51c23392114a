"""The one way a matrix of scores is drawn: cells, numbers in them, a colour bar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from taskgrid.plots import style

MANY_COLUMNS = 12
"""With more columns the numbers in the cells lose their decimals."""


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
    decimals: int | None,
    gaps: float = 0.6,
) -> QuadMesh:
    """Draw a matrix; missing cells stay blank.

    Args:
        axes: where to draw.
        cells: the values, rows top to bottom.
        limits: the values at the ends of the colour map.
        colours: the colour map's name.
        decimals: decimals of the number printed in each cell; None prints no numbers.
        gaps: width in points of the white lines between cells.
    """
    numbers = False if decimals is None else cells.astype(float).round(decimals) + 0.0  # no "-0.0"
    sns.heatmap(
        cells.astype(float),
        ax=axes,
        vmin=limits[0],
        vmax=limits[1],
        cmap=colours,
        cbar=False,
        mask=cells.isna().to_numpy(),
        annot=numbers,
        fmt=f".{decimals or 0}f",
        annot_kws={"fontsize": 6.5},
        linewidths=gaps,
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


def colour_bar(figure: Figure, mesh: QuadMesh, axes: list[Axes], text: str) -> None:
    """Add a slim colour bar to the right of the axes."""
    bar = figure.colorbar(mesh, ax=axes, fraction=0.04, pad=0.02, aspect=28, label=text)
    bar.outline.set_visible(False)


def name_columns(axes: Axes, names: list[str], room: float) -> None:
    """Label the columns with task names, tilted where ``room`` inches are too few."""
    words = [style.label(name) for name in names]
    axes.set_xticks(np.arange(len(words)) + 0.5, words)
    style.tilt_labels(axes, words, room)


def name_rows(axes: Axes, names: list[str]) -> None:
    """Label the rows with task names."""
    axes.set_yticks(np.arange(len(names)) + 0.5, [style.label(name) for name in names])
