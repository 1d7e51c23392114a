"""From files to figure files: read the tables a figure needs, draw it, write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
from matplotlib.figure import Figure

from taskgrid import plugins
from taskgrid.errors import ArtifactError
from taskgrid.plots import style
from taskgrid.plots.sheet import PAGE, Sheet
from taskgrid.plugins.cards import figure_card
from taskgrid.results import read_frame

Draw = Callable[[style.Tables, Sheet], Figure]

RunLabels = Mapping[str, Any]
"""Columns to add to a table (model, mode, seed, task) and their values."""

_COLUMNS = {
    "history": ["model", "mode", "seed", "task", "step", "metric", "value"],
}


def draw_figure(name: str, tables: style.Tables, sheet: Sheet = PAGE) -> Figure:
    """Draw a registered figure, as wide as the sheet.

    Raises:
        ConfigError: if there is no such figure.
        ArtifactError: if a table it needs is not given.
    """
    card = figure_card(name)
    for table in card.tables:
        if table not in tables:
            raise ArtifactError(f"figure {name!r} needs the table {table!r}, which was not given")
    draw = cast(Draw, plugins.load("figure", name).draw)
    return draw(tables, sheet)


def write_figure(
    name: str, tables: style.Tables, sheet: Sheet, pdf: str | Path, png: str | Path
) -> None:
    """Draw a registered figure and write it as PDF and PNG."""
    style.save(draw_figure(name, tables, sheet), pdf, png)


def read_tables(listing: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, pd.DataFrame]:
    """Read the tables of a figure; a table in several files becomes one, each part labelled.

    Args:
        listing: table -> its files, ``{"path": file, "labels": labels of its rows}`` each.

    Raises:
        ArtifactError: if a file is missing or damaged.
    """
    return {
        table: _join([(part["labels"], part["path"]) for part in parts], table)
        for table, parts in listing.items()
    }


def _join(parts: Sequence[tuple[RunLabels, str | Path]], name: str) -> pd.DataFrame:
    tables = [_labelled(read_frame(path), labels) for labels, path in parts]
    if not tables:
        return pd.DataFrame(columns=_COLUMNS.get(name, []))
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def _labelled(table: pd.DataFrame, labels: RunLabels) -> pd.DataFrame:
    return table.assign(**labels) if labels else table
