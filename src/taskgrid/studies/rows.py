"""Rows of studies' own tables: how a run is named in them, and how they become columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from taskgrid.plugins.cards import TableCard

RUN = ("model", "mode", "seed", "method", "options")
"""The columns that name a run and a method."""


def laid_out(card: TableCard, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table with the columns of its card, in their order; other values are left out."""
    return pa.table({column: [row[column] for row in rows] for column in card.columns})
