from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.analysis.selection import SELECTED, first_maximum, select
from taskgrid.errors import ArtifactError, ConfigError, DataError
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.rows import sort_rows, unique_rows
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.provenance import derive_seed
from taskgrid.store.intervals import Pair, mean_intervals
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.studies import get_study
from taskgrid.studies.seam import Curves
from tests.unit.example_plans import FakeBench, method, setting

ADDITION = get_study("addition")


def curves(
    correct: Sequence[Sequence[int]],
    expert: Sequence[int],
    n: Sequence[int] | None = None,
    lambdas: Sequence[str] | None = None,
) -> Curves:
    tasks = tuple("abcdefgh"[: len(expert)])
    return Curves(
        subset=tasks,
        lambdas=tuple(lambdas or [f"{i / 10:.2f}" for i in range(len(correct))]),
        tasks=tasks,
        n=np.array(n or [100] * len(expert)),
        correct=np.array(correct).reshape(-1, len(expert)),
        expert=np.array(expert),
        zeroshot=np.zeros(len(expert), dtype=np.int64),
    )


def chosen(*args: Any, **options: Any) -> str:
    return ADDITION.choose(curves(*args, **options)).scale


# --- the choice ------------------------------------------------------------------------------------


def test_the_mean_of_normalised_accuracy_decides_not_that_of_accuracy() -> None:
    # Accuracies 0.90 + 0.10 and 0.80 + 0.15: the second gains more relative to weak expert b.
    assert chosen([[90, 10], [80, 15]], expert=[90, 20]) == "0.10"
    assert chosen([[90, 10], [80, 15]], expert=[90, 90]) == "0.00"


def test_the_first_maximum_wins_a_tie() -> None:
    assert chosen([[50], [70], [70], [60], [70]], expert=[90]) == "0.10"
    assert chosen([[50, 50]] * 4, expert=[90, 80]) == "0.00"


def test_a_tie_is_a_tie_although_floats_differ() -> None:
    # 1/10 + 2/10 + 3/10 and its permutations: equal as fractions, not always as sums of floats.
    rows = [list(row) for row in itertools.permutations([1, 2, 3, 7, 9])]

    def added(row: list[int]) -> float:
        # One after the other: the built-in sum() of Python 3.12 compensates for what rounding loses.
        return functools.reduce(operator.add, (c / 10 for c in row))

    rows.sort(key=added)
    # As floats the last one would win.
    assert added(rows[0]) < added(rows[-1])
    assert chosen(rows, expert=[10] * 5) == "0.00"
    assert chosen([[0] * 5, *rows], expert=[10] * 5) == "0.10"


@given(
    data=st.data(),
    tasks=st.integers(1, 4),
    lambdas=st.integers(1, 8),
)
def test_the_choice_equals_brute_force(data: st.DataObject, tasks: int, lambdas: int) -> None:
    counts = st.integers(0, 12)
    expert = data.draw(st.lists(st.integers(1, 12), min_size=tasks, max_size=tasks))
    correct = data.draw(
        st.lists(
            st.lists(counts, min_size=tasks, max_size=tasks), min_size=lambdas, max_size=lambdas
        )
    )
    scores = [
        sum(Fraction(c, e) for c, e in zip(row, expert, strict=True)) / tasks for row in correct
    ]
    assert chosen(correct, expert=expert) == f"{scores.index(max(scores)) / 10:.2f}"


def test_a_task_whose_expert_gets_nothing_right_is_left_out() -> None:
    assert chosen([[0, 50], [99, 40]], expert=[0, 80]) == "0.00"
    assert chosen([[30, 10], [20, 30]], expert=[0, 0], n=[100, 100]) == "0.10"


def test_the_edge_of_the_sweep_is_reported() -> None:
    rows = [[10], [30], [20]]
    assert not ADDITION.choose(curves(rows, [50])).at_edge
    assert ADDITION.choose(curves(rows[1:], [50])).at_edge
    assert ADDITION.choose(curves(rows[:2], [50])).at_edge
    assert not ADDITION.choose(curves(rows[:1], [50])).at_edge


def test_negative_lambdas_are_not_chosen_unless_there_are_no_others() -> None:
    lambdas = ["-0.50", "0.00", "0.50", "1.00"]
    best_negative = curves([[90], [10], [30], [20]], [50], lambdas=lambdas)
    assert ADDITION.choose(best_negative).scale == "0.50"
    at_zero = curves([[90], [60], [30], [20]], [50], lambdas=lambdas)
    assert (ADDITION.choose(at_zero).scale, ADDITION.choose(at_zero).at_edge) == ("0.00", True)
    only = curves([[10], [30]], [50], lambdas=["-0.50", "-0.25"])
    assert ADDITION.choose(only).scale == "-0.25"


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(DataError, match="no validation rows"):
        first_maximum([])


def test_studies_are_found_by_name() -> None:
    assert ADDITION.name == "addition"
    with pytest.raises(ConfigError, match="did you mean 'addition'"):
        get_study("aditions")


# --- the table of chosen points ------------------------------------------------------------------------


LAMBDAS = ("0.00", "0.25", "0.50", "0.75", "1.00")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, OutcomeStore]:
    store, bench = OutcomeStore(tmp_path_factory.mktemp("store")), FakeBench()
    tables = []
    for seed in (0, 1):
        ours = replace(setting("abc"), seed=seed)
        tables.append(run_reference(ours, store, bench.open).table)
        for name in ("task_arithmetic", "average"):
            plan = make_plan(ours, method(name), ["a", "b", "a+b", "a+b+c"], LAMBDAS)
            tables.append(run_plan(plan, store, bench.open, [ADDITION]).table)
    return unique_rows(sort_rows(pa.concat_tables(tables))), store


def without(table: pa.Table, **wanted: Any) -> pa.Table:
    keep = [
        not all(row[key] == value for key, value in wanted.items()) for row in table.to_pylist()
    ]
    assert not all(keep)
    return table.filter(pa.array(keep))


def test_every_merge_has_one_chosen_point_per_study(
    measured: tuple[pa.Table, OutcomeStore],
) -> None:
    grid, store = measured
    table = select(grid, [ADDITION], store.find)
    assert table.schema == SELECTED
    assert table.num_rows == 2 * 2 * 4
    by_subset = {row["subset"]: row for row in table.to_pylist()}
    assert {name: row["lambda"] for name, row in by_subset.items()} == {
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
    measured: tuple[pa.Table, OutcomeStore],
) -> None:
    grid, store = measured
    frame = grid.to_pandas()
    for row in select(grid, [ADDITION], store.find).to_pylist():
        same = frame[
            (frame["method"] == row["method"])
            & (frame["seed"] == row["seed"])
            & (frame["subset"] == row["subset"])
            & (frame["lambda"] == row["lambda"])
        ]
        for split in ("val", "test"):
            rows = same[same["split"] == split]
            assert row[f"{split}_accuracy"] == pytest.approx(rows["accuracy"].mean(), abs=1e-12)
            assert row[f"{split}_normalized"] == pytest.approx(
                rows["normalized_accuracy"].mean(), abs=1e-12
            )
        assert row["test_accuracy_low"] < row["test_accuracy"] < row["test_accuracy_high"]
        assert row["test_normalized_low"] < row["test_normalized"] < row["test_normalized_high"]


def test_intervals_come_from_the_stored_outcomes(measured: tuple[pa.Table, OutcomeStore]) -> None:
    grid, store = measured
    (row,) = (
        row
        for row in select(grid, [ADDITION], store.find, level=0.8, draws=500).to_pylist()
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
    measured: tuple[pa.Table, OutcomeStore],
) -> None:
    grid, store = measured
    everything = select(grid, [ADDITION], store.find).to_pylist()
    part = select(without(grid, method="average"), [ADDITION], store.find).to_pylist()
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
    ({"method": "zeroshot", "task": "a"}, "no zero-shot val row of model 'tiny' on task 'a'"),
    (
        {"method": "average", "subset": "a+b", "split": "test", "task": "a"},
        "no test row on task 'a'",
    ),
    (
        {"method": "average", "subset": "a+b", "split": "val", "task": "b", "lambda": "0.25"},
        "no val row",
    ),
]


@pytest.mark.parametrize(("row", "sentence"), MISSING, ids=[text for _, text in MISSING])
def test_a_missing_row_is_named(
    row: dict[str, Any], sentence: str, measured: tuple[pa.Table, OutcomeStore]
) -> None:
    grid, store = measured
    with pytest.raises(DataError, match=sentence):
        select(without(grid, **row), [ADDITION], store.find)


def test_a_lost_store_is_named(measured: tuple[pa.Table, OutcomeStore]) -> None:
    grid, _ = measured
    nothing: dict[str, Outcome] = {}
    with pytest.raises(ArtifactError, match="are not in the store any more"):
        select(grid, [ADDITION], lambda keys: nothing)
