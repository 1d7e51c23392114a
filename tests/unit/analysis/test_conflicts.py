"""Conflicts as tables: one per run, and all of them in one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from taskgrid.analysis.conflicts import CONFLICTS, collect_conflicts, run_conflicts
from taskgrid.errors import ArtifactError
from taskgrid.store.tables import write_table

VECTORS = {
    "b": {"ln_post.bias": torch.tensor([3.0, 4.0]), "proj": torch.zeros(2, 2)},
    "a": {"ln_post.bias": torch.tensor([4.0, -3.0]), "proj": torch.zeros(2, 2)},
}


def test_a_run_is_labelled_and_what_there_is_not_is_null() -> None:
    table = run_conflicts(VECTORS, "m", "standard", 3)
    assert table.schema == CONFLICTS
    labels = {(row["model"], row["mode"], row["seed"]) for row in table.to_pylist()}
    assert labels == {("m", "standard", 3)}
    rows = {(row["task_a"], row["task_b"], row["layer"]): row for row in table.to_pylist()}
    assert list(rows) == [
        (*pair, layer) for pair in ("aa", "ab", "bb") for layer in ("output", "all")
    ]
    assert (rows["a", "b", "all"]["cosine"], rows["a", "b", "all"]["norm_ratio"]) == (0, 1)
    assert rows["a", "b", "all"]["sign_agreement"] == 0.5 and rows["b", "b", "output"]["gram"] == 25
    assert rows["a", "b", "all"]["overlap"] is rows["a", "b", "all"]["depth"] is None


def test_runs_become_one_table_in_one_order(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_table(tmp_path / str(seed), run_conflicts(VECTORS, "m", "standard", seed))
    one, other = (
        collect_conflicts([tmp_path / first, tmp_path / last]) for first, last in ("01", "10")
    )
    assert one == other and one.schema == CONFLICTS and one.num_rows == 12
    assert one["seed"].to_pylist() == [0] * 6 + [1] * 6
    assert collect_conflicts([]).num_rows == 0


def test_another_table_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", pa.table({"model": ["m"]}))
    with pytest.raises(ArtifactError, match="other columns than a table of conflicts"):
        collect_conflicts([tmp_path / "x.parquet"])
