"""Shapley values against orders of joining, closed forms, and games that are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import ArtifactError, ConfigError, DataError
from taskgrid.lattice.subsets import subset_of_number
from taskgrid.plugins.cards import study_card
from taskgrid.store.columns import card_schema, words_of
from taskgrid.store.outcome import Outcome
from taskgrid.studies import get_study
from taskgrid.studies.seam import Field, Results
from taskgrid.studies.shapley import LEVEL, shapley_weights
from taskgrid.studies.tables import study_table

TASKS = ("a", "b", "c")
IMAGES = {"a": 40, "b": 60, "c": 30}
Hit = Callable[[str, frozenset[str]], np.ndarray]


# --- the weights -------------------------------------------------------------------------------------


def by_orders(value: np.ndarray, players: int) -> np.ndarray:
    """The definition: the mean gain over all orders in which the players join."""
    gains = np.zeros(players)
    for order in itertools.permutations(range(players)):
        members = 0
        for player in order:
            gains[player] += value[members | 1 << player] - value[members]
            members |= 1 << player
    return gains / math.factorial(players)


@given(data=st.data(), players=st.integers(1, 5))
def test_values_are_mean_gains_over_all_orders(data: st.DataObject, players: int) -> None:
    numbers = st.floats(-1, 1, allow_nan=False)
    value = np.array(data.draw(st.lists(numbers, min_size=1 << players, max_size=1 << players)))
    values = shapley_weights(players) @ value
    assert values == pytest.approx(by_orders(value, players), abs=1e-12)
    assert math.fsum(values) == pytest.approx(value[-1] - value[0], abs=1e-12)


def test_of_an_additive_game_the_values_are_the_parts() -> None:
    parts = np.array([0.3, -0.1, 0.25, 0.0, 0.07, 0.4, 0.01, 0.2, 0.11, -0.3])
    value = [parts[list(subset_of_number(s, range(10)))].sum() for s in range(1 << 10)]  # type: ignore[arg-type]
    assert shapley_weights(10) @ np.array(value) == pytest.approx(parts, abs=1e-12)


# --- the table -----------------------------------------------------------------------------------------


class World:
    """A grid of outcomes that follow a law: which images of a task a merge gets right."""

    def __init__(self, hit: Hit, expert: Hit | None = None, *, outside: bool = True) -> None:
        self.outcomes: dict[str, Outcome] = {}
        rows, chosen = [], []
        run = {"model": "m", "mode": "standard", "seed": 0}
        for task in TASKS:
            rows.append(self._row({"model": "m", "mode": None}, "zeroshot", "", "0.00", task, hit))
            own = expert or (lambda task, members: np.ones(IMAGES[task], dtype=bool))
            rows.append(self._row(run, "expert", task, "1.00", task, own))
        for size in (1, 2, 3):
            for members in itertools.combinations(TASKS, size):
                subset = "+".join(members)
                chosen.append({**run, "method": "ties", "options": "{}", "subset": subset})
                for task in TASKS if outside else members:
                    rows.append(self._row(run, "ties", subset, "0.30", task, hit))
        self.grid = pd.DataFrame(rows).astype({"seed": "Int64"})
        self.selected = pd.DataFrame(chosen).assign(study="addition", point="0.30")
        self.hit = hit

    def _row(
        self, run: Mapping[str, object], method: str, subset: str, point: str, task: str, hit: Hit
    ) -> dict[str, object]:
        key = f"{len(self.outcomes):032x}"
        hits = hit(task, frozenset(subset.split("+")) - {""})
        self.outcomes[key] = Outcome.of(key, hits, 0.0, 0.0)
        return {
            **run,
            "seed": run.get("seed"),
            "method": method,
            "options": "{}",
            "subset": subset,
            "point": point,
            "task": task,
            "split": "test",
            "key": key,
        }

    def find(self, keys: Iterable[str]) -> dict[str, Outcome]:
        return {key: self.outcomes[key] for key in keys if key in self.outcomes}

    def table(self, **options: object) -> pa.Table:
        results = Results("shapley", self.grid, self.selected, self.find, TASKS)
        return study_table("shapley", options, "values", results)

    def accuracy(self, task: str, members: Iterable[str]) -> float:
        return float(self.hit(task, frozenset(members)).mean())


def drawn(task: str, members: frozenset[str]) -> np.ndarray:
    """Any law: seeded by who is in the merge."""
    seed = [ord(name) for name in (task, *sorted(members))]
    share = 0.2 + 0.6 * (task in members) - 0.1 * len(members - {task})
    return np.random.default_rng(seed).random(IMAGES[task]) < share


def values_of(table: pa.Table, column: str = "value") -> list[float]:
    return [row[column] for row in table.to_pylist()]


@pytest.mark.parametrize("outside", [False, True])
def test_the_values_are_those_of_the_game_of_accuracies(outside: bool) -> None:
    world = World(drawn, outside=outside)
    value = np.zeros(8)
    for number in range(1, 8):
        members = subset_of_number(number, TASKS)
        value[number] = np.mean(
            [
                world.accuracy(task, members if outside or task in members else ())
                - world.accuracy(task, ())
                for task in TASKS
            ]
        )
    table = world.table(outside=outside)
    assert values_of(table) == pytest.approx(by_orders(value, 3), abs=1e-12)
    assert values_of(table, "alone") == pytest.approx(value[[1, 2, 4]], abs=1e-12)
    # Efficiency: what the tasks contribute is what their merge gains.
    assert math.fsum(values_of(table)) == pytest.approx(value[7], abs=1e-12)
    assert values_of(table, "share") == pytest.approx(
        np.array(values_of(table)) / value[7], abs=1e-12
    )


def test_normalised_values_are_relative_to_the_experts() -> None:
    def expert(task: str, members: frozenset[str]) -> np.ndarray:
        return np.arange(IMAGES[task]) < IMAGES[task] * 0.8

    world = World(drawn, expert)
    plain, relative = world.table(), world.table(score="normalized_accuracy")
    assert values_of(relative) == pytest.approx(np.array(values_of(plain)) / 0.8, abs=1e-12)

    def blind(task: str, members: frozenset[str]) -> np.ndarray:
        return np.zeros(IMAGES[task], dtype=bool) if task == "c" else expert(task, members)

    # As everywhere, a task whose expert gets nothing right is left out of the mean.
    world = World(drawn, blind, outside=False)
    gains = [world.accuracy(task, TASKS) - world.accuracy(task, ()) for task in "ab"]
    left = values_of(world.table(score="normalized_accuracy"))
    assert math.fsum(left) == pytest.approx(np.mean(gains) / 0.8, abs=1e-12)


def test_tasks_that_help_only_themselves_are_worth_what_they_gain_alone() -> None:
    def law(task: str, members: frozenset[str]) -> np.ndarray:
        return np.arange(IMAGES[task]) < IMAGES[task] * (0.8 if task in members else 0.3)

    table = World(law).table(outside=True)
    assert values_of(table) == pytest.approx([0.5 / 3] * 3, abs=1e-12)
    assert values_of(table) == pytest.approx(values_of(table, "alone"), abs=1e-12)


def test_fewer_players_are_a_game_of_their_own() -> None:
    world = World(drawn, outside=False)
    gains = [world.accuracy(task, "ab") - world.accuracy(task, ()) for task in "ab"]
    table = world.table(tasks=["b", "a"])
    assert values_of(table, "task") == ["a", "b"]
    assert math.fsum(values_of(table)) == pytest.approx(np.mean(gains), abs=1e-12)


def test_intervals_are_those_of_paired_resamples() -> None:
    # Every merge gains the same 18 of 60 images of b: what is resampled is a share of images.
    def law(task: str, members: frozenset[str]) -> np.ndarray:
        return np.arange(IMAGES[task]) < (18 if task == "b" and "b" in members else 0)

    rows = {row["task"]: row for row in World(law).table(draws=4000).to_pylist()}
    assert rows["a"]["low"] == rows["a"]["high"] == rows["a"]["value"] == 0
    wide = 1.96 * math.sqrt(0.3 * 0.7 / 60) / 3
    assert rows["b"]["value"] == pytest.approx(0.3 / 3)
    assert rows["b"]["low"] == pytest.approx(0.1 - wide, abs=0.006)
    assert rows["b"]["high"] == pytest.approx(0.1 + wide, abs=0.006)
    assert rows["b"]["level"] == LEVEL == 0.95
    again = World(law).table(draws=4000)
    assert again.to_pylist() == list(rows.values())


def test_a_game_of_no_gain_has_no_shares() -> None:
    def law(task: str, members: frozenset[str]) -> np.ndarray:
        return np.ones(IMAGES[task], dtype=bool)

    table = World(law).table()
    assert values_of(table) == [0, 0, 0] and values_of(table, "share") == [None] * 3


def test_the_table_is_what_the_card_says() -> None:
    card = study_card("shapley").tables["values"]
    table = World(drawn).table()
    assert table.schema == card_schema(card)
    assert all(words_of(table.schema).values())


def test_a_missing_subset_is_one_sentence() -> None:
    world = World(drawn)
    world.selected = world.selected[world.selected["subset"] != "a+c"]
    with pytest.raises(DataError, match=r"1 of 7 lack a row on test .* e\.g\. a\+c; evaluate all"):
        world.table()
    with pytest.raises(DataError, match=r"set evaluation\.outside to true, and"):
        World(drawn, outside=False).table(outside=True)
    assert len(world.table(tasks=["a", "b"])) == 2


def test_a_task_without_expert_and_a_lost_outcome_are_named() -> None:
    world = World(drawn)
    with pytest.raises(DataError, match="task 'sun' has no expert"):
        world.table(tasks=["a", "sun"])
    world.outcomes.popitem()
    with pytest.raises(ArtifactError, match=r"1 outcomes behind ties .* are not in the store"):
        world.table()


def test_a_grid_that_lacks_a_subset_is_refused_before_anything_is_measured() -> None:
    study = get_study("shapley")
    field = Field(("a", "b", "c"))
    whole = {s for n in (1, 2, 3) for s in itertools.combinations("abc", n)}
    study.check(field, whole)
    with pytest.raises(
        ConfigError, match=r"every subset of its 3 tasks, and a\+c is not on the grid"
    ):
        study.check(field, whole - {("a", "c")})
    get_study("shapley", {"tasks": ["a", "b"]}).check(field, whole - {("a", "c")})
