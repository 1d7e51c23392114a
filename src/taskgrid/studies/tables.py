"""A study's own tables, made from the finished grid and held against the study's card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from taskgrid.errors import ConfigError, DataError
from taskgrid.plugins.cards import study_card
from taskgrid.sentences import unknown
from taskgrid.store.columns import card_schema
from taskgrid.studies import get_study
from taskgrid.studies.seam import Results


def study_table(study: str, options: Mapping[str, Any], name: str, results: Results) -> pa.Table:
    """Return a table of a study's own, with the types and the words of its columns.

    Args:
        study: the study.
        options: its options.
        name: which of the tables on its card.
        results: the finished grid.

    Raises:
        ConfigError: if there is no such study, option or table.
        DataError: if the grid lacks what the study needs, or the table differs from the card.
    """
    cards = study_card(study).tables
    if name not in cards:
        raise ConfigError(unknown(f"table of the study {study!r}:", name, list(cards)))
    table = get_study(study, options).table(name, results)
    return _conform(table, card_schema(cards[name]), f"table {study}/{name}")


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
