"""What pages that are made from tables share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd


def percent(share: float) -> str:
    """Return a share in percent, one decimal."""
    return f"{100 * share:.1f}"


def interval(row: Mapping[Any, Any], name: str, *ends: str) -> str:
    """Return a share of a row with its interval, in percent; empty where it has none.

    Args:
        row: the row.
        name: the column of the share.
        ends: the columns of both ends, if they are not ``{name}_low`` and ``{name}_high``.
    """
    values = [row[column] for column in (name, *(ends or (f"{name}_low", f"{name}_high")))]
    if any(pd.isna(value) for value in values):
        return ""
    value, low, high = map(percent, values)
    return f"{value} ({low} to {high})"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar in a cell is no border."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
