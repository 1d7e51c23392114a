"""Curves of several quantities: a row of each, a column per run; on a page, those of one run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from taskgrid.plots import style
from taskgrid.plots.sheet import Sheet


def frame(
    sheet: Sheet, quantities: int, runs: int, tall: float, legend: Sequence[Any]
) -> tuple[Figure, NDArray[Any]]:
    """Return a figure and its axes, ``[quantity, run]``, that share x, and y within a quantity.

    Args:
        sheet: where the figure stands.
        quantities: what is drawn of each run.
        runs: models and modes.
        tall: height in inches of a panel that has a row to itself.
        legend: handles of the legend.
    """
    if sheet.narrow or runs > 1:
        figure = sheet.figure(quantities * tall + 0.6, legend)
        return figure, figure.subplots(quantities, runs, squeeze=False, sharex="col", sharey="row")
    across = 3 if quantities % 3 == 0 else 2
    down = -(-quantities // across)
    figure = sheet.figure(down * 1.5 * tall + 0.6, legend)
    return figure, figure.subplots(down, across, squeeze=False, sharex="col").reshape(-1, 1)


def finish(sheet: Sheet, axes: NDArray[Any], title: str, layers: Sequence[str] = ()) -> None:
    """Give a run's axes its title, and names of layers along x where that is depth."""
    room = (sheet.inches - 0.55) / axes[0].get_gridspec().ncols - 0.15
    # A dot between words is a break where they are too long.
    axes[0].set_title(
        title if style.text_width(title, style.TEXT) <= room else title.replace(" · ", "\n")
    )
    for each in axes:
        if layers and each.get_subplotspec().is_last_row():
            style.name_layers(each, layers, room)
