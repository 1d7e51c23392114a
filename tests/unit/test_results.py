from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from taskgrid.analysis.selection import select
from taskgrid.errors import ArtifactError
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.rows import GRID, sort_rows
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.results import read_grid, read_published, read_selected, read_summary
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from tests.unit.example_plans import FakeBench, method, setting


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A folder that looks like a Hive partition must not add a column.
    folder = tmp_path_factory.mktemp("x") / "seed=7"
    store, bench, ours = OutcomeStore(folder / "store"), FakeBench(), setting("ab")
    plan = make_plan(ours, method(), ["a", "a+b"], ["0.00", "0.50"])
    result = run_plan(plan, store, bench.open)
    grid = sort_rows(pa.concat_tables([run_reference(ours, store, bench.open).table, result.table]))
    write_table(folder / "tables" / "grid.parquet", grid)
    write_table(folder / "tables" / "selected.parquet", select(grid, result.choices, store.find))
    return folder


def test_the_grid_is_a_frame_with_typed_columns(results: Path) -> None:
    frame = read_grid(results)
    assert list(frame.columns) == GRID.names
    assert str(frame["seed"].dtype) == "Int64"
    assert frame["seed"].isna().sum() == (frame["method"] == "zeroshot").sum() == 4
    assert set(frame.loc[frame["method"] == "task_arithmetic", "seed"]) == {0}
    assert set(frame["point"]) == {"0.00", "0.50", "1.00"}
    assert frame["scale"].equals(frame["point"].astype(float))
    assert frame["in_subset"].dtype == bool
    merges = frame[frame["method"] == "task_arithmetic"]
    assert merges["accuracy"].equals(merges["correct"] / merges["n"])


def test_the_grid_is_an_arrow_table_on_request(results: Path) -> None:
    table = read_grid(results, "arrow")
    assert table.schema == GRID
    pd.testing.assert_series_equal(table["key"].to_pandas(), read_grid(results)["key"])


def test_chosen_points_join_with_the_grid(results: Path) -> None:
    chosen, grid = read_selected(results), read_grid(results)
    on = ["model", "mode", "seed", "method", "options", "subset", "point"]
    joined = grid[grid["split"] == "test"].merge(chosen, on=on)
    assert len(joined) == 1 + 2
    assert (joined["role"] == "selected").all()
    assert read_selected(results, "arrow").num_rows == len(chosen) == 2


@pytest.mark.parametrize("reader", [read_grid, read_published, read_selected, read_summary])
def test_a_missing_table_is_named(reader: object, tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"tables/\w+\.(parquet|csv) is missing; run the workflow"
    ):
        reader(tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("reader", [read_grid, read_published, read_summary])
def test_a_damaged_table_is_named(reader: object, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("grid.parquet", "published.csv", "summary.csv"):
        (tmp_path / "tables" / name).write_bytes(b"\xff\x00not a table")
    with pytest.raises(ArtifactError, match="is damaged"):
        reader(tmp_path)  # type: ignore[operator]
