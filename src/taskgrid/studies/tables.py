"""A study's own tables, made from the finished grid and held against the study's card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from taskgrid.errors import DataError
from taskgrid.plugins.cards import study_card
from taskgrid.store.columns import card_schema
from taskgrid.studies import get_study
from taskgrid.studies.seam import Results


def study_tables(name: str, options: Mapping[str, Any], results: Results) -> dict[str, pa.Table]:
    """Return all tables of a study, with the types and the words of their columns.

    Args:
        name: the study.
        options: its options.
        results: the finished grid.

    Raises:
        ConfigError: if there is no such study or option.
        DataError: if the grid lacks what the study needs, or a table differs from the study's card.
    """
    study = get_study(name, options)
    return {
        table: _conform(study.table(table, results), card_schema(card), f"table {name}/{table}")
        for table, card in study_card(name).tables.items()
    }


def _conform(table: pa.Table, schema: pa.Schema, owner: str) -> pa.Table:
    if table.schema.names != schema.names:
        raise DataError(
            f"{owner} has the columns {', '.join(table.schema.names)}, and its card says "
            f"{', '.join(schema.names)}; make them equal"
        )
    try:
        return table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{owner} does not fit the types on its card: {error}") from None
