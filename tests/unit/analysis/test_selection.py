"""The table of chosen points: scores and intervals of what was chosen and stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from taskgrid.analysis.selection import SELECTED, select
from taskgrid.errors import ArtifactError, DataError
from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.rows import sort_rows, unique_rows
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.provenance import derive_seed
from taskgrid.store.intervals import Pair, mean_intervals
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from tests.unit.example_plans import FakeBench, method, setting


class Measured(NamedTuple):
    grid: pa.Table
    choices: tuple[Chosen, ...]
    store: OutcomeStore


LAMBDAS = ("0.00", "0.25", "0.50", "0.75", "1.00")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    store, bench = OutcomeStore(tmp_path_factory.mktemp("store")), FakeBench()
    tables, choices = [], []
    for seed in (0, 1):
        ours = replace(setting("abc"), seed=seed)
        tables.append(run_reference(ours, store, bench.open).table)
        for name in ("task_arithmetic", "average"):
            plan = make_plan(ours, method(name), ["a", "b", "a+b", "a+b+c"], LAMBDAS)
            result = run_plan(plan, store, bench.open)
            tables.append(result.table)
            choices += result.choices
    return Measured(unique_rows(sort_rows(pa.concat_tables(tables))), tuple(choices), store)


def without(table: pa.Table, **wanted: Any) -> pa.Table:
    keep = [
        not all(row[key] == value for key, value in wanted.items()) for row in table.to_pylist()
    ]
    assert not all(keep)
    return table.filter(pa.array(keep))


def test_every_merge_has_one_chosen_point_per_study(
    measured: Measured,
) -> None:
    grid, choices, store = measured
    table = select(grid, choices, store.find)
    assert table.schema == SELECTED
    assert table.num_rows == 2 * 2 * 4
    by_subset = {row["subset"]: row for row in table.to_pylist()}
    assert {name: row["point"] for name, row in by_subset.items()} == {
        "a": "1.00",
        "b": "1.00",
        "a+b": "0.50",
        "a+b+c": "0.25",
    }
    assert {row["at_edge"] for name, row in by_subset.items() if len(name) == 1} == {True}
    for row in table.to_pylist():
        assert (row["study"], row["tasks"]) == ("addition", row["subset"])
        assert row["size"] == len(row["tasks"].split("+"))
        assert row["rule"] == "first maximum of mean normalised accuracy on val"


def test_scores_are_means_over_the_tasks_of_the_rows(
    measured: Measured,
) -> None:
    grid, choices, store = measured
    frame = grid.to_pandas()
    for row in select(grid, choices, store.find).to_pylist():
        same = frame[
            (frame["method"] == row["method"])
            & (frame["seed"] == row["seed"])
            & (frame["subset"] == row["subset"])
            & (frame["point"] == row["point"])
        ]
        for split in ("val", "test"):
            rows = same[same["split"] == split]
            assert row[f"{split}_accuracy"] == pytest.approx(rows["accuracy"].mean(), abs=1e-12)
            assert row[f"{split}_normalized"] == pytest.approx(
                rows["normalized_accuracy"].mean(), abs=1e-12
            )
        assert row["test_accuracy_low"] < row["test_accuracy"] < row["test_accuracy_high"]
        assert row["test_normalized_low"] < row["test_normalized"] < row["test_normalized_high"]


def test_intervals_come_from_the_stored_outcomes(measured: Measured) -> None:
    grid, choices, store = measured
    (row,) = (
        row
        for row in select(grid, choices, store.find, level=0.8, draws=500).to_pylist()
        if (row["method"], row["subset"], row["seed"]) == ("average", "a+b", 1)
    )
    keys: list[tuple[str, str]] = []
    for task in "ab":
        (own,) = (
            r["key"]
            for r in grid.to_pylist()
            if (r["method"], r["subset"], r["seed"], r["task"], r["split"])
            == ("average", "a+b", 1, task, "test")
        )
        (expert,) = (
            r["key"]
            for r in grid.to_pylist()
            if (r["method"], r["subset"], r["seed"], r["task"], r["split"])
            == ("expert", task, 1, task, "test")
        )
        keys.append((own, expert))
    found = store.find({key for pair in keys for key in pair})
    pairs = [
        Pair.of(found[own].hits(), found[expert].hits(), derive_seed("bootstrap", own, expert))
        for own, expert in keys
    ]
    accuracy, normalized = mean_intervals(pairs, level=0.8, draws=500)
    assert (row["test_accuracy_low"], row["test_accuracy_high"]) == (accuracy.low, accuracy.high)
    assert (row["test_normalized_low"], row["test_normalized_high"]) == (
        normalized.low,
        normalized.high,
    )
    assert row["level"] == 0.8


def test_the_table_does_not_depend_on_what_else_is_in_the_grid(
    measured: Measured,
) -> None:
    grid, choices, store = measured
    everything = select(grid, choices, store.find).to_pylist()
    ours = [choice for choice in choices if choice.method != "average"]
    part = select(without(grid, method="average"), ours, store.find).to_pylist()
    assert part == [row for row in everything if row["method"] != "average"]


MISSING: list[tuple[dict[str, Any], str]] = [
    (
        {"method": "expert", "subset": "b", "task": "b", "split": "val"},
        "val row of the expert of task 'b'",
    ),
    (
        {"method": "expert", "subset": "b", "task": "b", "split": "test"},
        "test row of the expert of task",
    ),
    (
        {"method": "average", "subset": "a+b", "split": "test", "task": "a"},
        "no test row on task 'a'",
    ),
    (
        {"method": "average", "subset": "a+b", "split": "val", "task": "b", "point": "0.50"},
        "no val row on task 'b' at 0.50; run the eval rule",
    ),
]


@pytest.mark.parametrize(("row", "sentence"), MISSING, ids=[text for _, text in MISSING])
def test_a_missing_row_is_named(row: dict[str, Any], sentence: str, measured: Measured) -> None:
    grid, choices, store = measured
    with pytest.raises(DataError, match=sentence):
        select(without(grid, **row), choices, store.find)


def test_a_lost_store_is_named(measured: Measured) -> None:
    grid, choices, _ = measured
    nothing: dict[str, Outcome] = {}
    with pytest.raises(ArtifactError, match="are not in the store any more"):
        select(grid, choices, lambda keys: nothing)
