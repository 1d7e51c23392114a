"""Conflicts between task vectors as a table: of a run, and of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from taskgrid.errors import ArtifactError
from taskgrid.merging.conflicts import conflicts
from taskgrid.store.columns import schema_of
from taskgrid.store.tables import read_table
from taskgrid.store.weights import State

_RUN = ("model", "mode", "seed")
CONFLICTS = schema_of(
    (
        *(*_RUN, "task_a", "task_b", "layer", "depth"),
        *("gram", "cosine", "sign_agreement", "overlap", "rank", "norm_ratio"),
    )
)
"""A row is a pair of task vectors, or one with itself, in a layer."""


def run_conflicts(vectors: Mapping[str, State], model: str, mode: str, seed: int) -> pa.Table:
    """Return the table of a run.

    Args:
        vectors: task -> task vector.
        model: the run's model.
        mode: the mode of its experts.
        seed: their seed.
    """
    labels = {"model": model, "mode": mode, "seed": seed}
    rows = [labels | asdict(row) for row in conflicts(vectors)]
    return pa.Table.from_pylist(rows, schema=CONFLICTS)


def collect_conflicts(paths: Sequence[str | Path]) -> pa.Table:
    """Read the tables of runs into one, in an order that does not depend on theirs.

    Raises:
        ArtifactError: if a file is missing, damaged, or has other columns.
    """
    tables = [CONFLICTS.empty_table()]
    for path in paths:
        table = read_table(path)
        if table.schema != CONFLICTS:
            raise ArtifactError(
                f"{path} has other columns than a table of conflicts; delete it and run again"
            )
        tables.append(table)
    order = (*_RUN, "task_a", "task_b", "depth")
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in order]).cast(CONFLICTS)
