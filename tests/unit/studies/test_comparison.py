"""The comparison of methods: families, the best of each kind, ties, costs; on outcomes that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from taskgrid.errors import ArtifactError, ConfigError, DataError
from taskgrid.store.outcome import Outcome
from taskgrid.studies import get_study
from taskgrid.studies.seam import Field, Results
from taskgrid.studies.tables import study_table

RUN = {"model": "m", "mode": "standard", "seed": 0}
N = 200


class World:
    """Merges of a and b: an entry per (method, options), right on so many images of val and test."""

    def __init__(self, *entries: tuple[str, str, int, int], transductive: str = "") -> None:
        self.outcomes: dict[str, Outcome] = {}
        rows: list[dict[str, Any]] = []
        chosen: list[dict[str, Any]] = []
        for task in "ab":
            for split in ("val", "test"):
                rows.append(self._row("expert", "{}", task, "1.00", task, split, 180))
        for method, options, val, test in entries:
            for task in "ab":
                # A point that was not chosen, and is better on both: it must not enter.
                rows.append(self._row(method, options, "a+b", "0.90", task, "val", 199))
                rows.append(self._row(method, options, "a+b", "0.30", task, "val", val))
                rows.append(self._row(method, options, "a+b", "0.30", task, "test", test))
            chosen.append(
                {
                    **RUN,
                    "method": method,
                    "options": options,
                    "subset": "a+b",
                    "study": "addition",
                    "about": "",
                    "tasks": "a+b",
                    "point": "0.30",
                    "scale": 0.3,
                    "at_edge": False,
                    "val_normalized": val / 180,
                    **{f"test_accuracy{end}": test / N for end in ("", "_low", "_high")},
                    **{f"test_normalized{end}": test / 180 for end in ("", "_low", "_high")},
                }
            )
        grid = pd.DataFrame(rows).astype({"seed": "Int64"})
        self.grid = grid.assign(transductive=grid["method"] == transductive)
        self.selected = pd.DataFrame(chosen).astype({"seed": "Int64"})

    def _row(
        self, method: str, options: str, subset: str, point: str, task: str, split: str, right: int
    ) -> dict[str, Any]:
        key = f"{len(self.outcomes):032x}"
        self.outcomes[key] = Outcome.of(key, np.arange(N) < right, 0.0, 0.0)
        named = {"method": method, "options": options, "subset": subset, "point": point}
        return {**RUN, **named, "task": task, "split": split, "n": N, "correct": right, "key": key}

    def find(self, keys: Any) -> Mapping[str, Outcome]:
        return {key: self.outcomes[key] for key in keys if key in self.outcomes}

    def table(self, costs: pd.DataFrame | None = None, **options: Any) -> pd.DataFrame:
        results = Results("comparison", self.grid, self.selected, self.find, ("a", "b"), costs)
        return study_table("comparison", options, "methods", results).to_pandas()


def line(table: pd.DataFrame, method: str) -> dict[Any, Any]:
    (found,) = table[table["method"] == method].to_dict("records")
    return found


def test_validation_chooses_within_a_family_whatever_test_says() -> None:
    table = World(
        ("ties", '{"density": 0.1}', 150, 190),
        ("ties", '{"density": 0.2}', 160, 140),
        ("average", "{}", 120, 120),
    ).table()
    ties = line(table, "ties")
    assert (ties["options"], ties["entries"]) == ('{"density": 0.2}', 2)
    assert ties["accuracy"] == 0.7 and ties["val_normalized"] == pytest.approx(160 / 180)
    assert list(table["method"]) == ["ties", "average"]
    assert line(table, "average")["entries"] == 1


def test_of_equal_entries_the_first_by_its_options_is_taken() -> None:
    table = World(
        ("ties", '{"density": 0.2}', 150, 100), ("ties", '{"density": 0.1}', 150, 110)
    ).table()
    assert line(table, "ties")["options"] == '{"density": 0.1}'


def test_who_is_tied_with_the_best_is_a_matter_of_images_that_differ() -> None:
    # The first images are right, so that all differences have one sign: 2 (p 0.5), 10 and 80 of 400.
    table = World(
        ("ties", "{}", 150, 150),
        ("magmax", "{}", 150, 149),
        ("tsv_m", "{}", 150, 145),
        ("average", "{}", 150, 110),
    ).table()
    best, near, less, worst = (line(table, name) for name in ("ties", "magmax", "tsv_m", "average"))
    assert best["tied"] and np.isnan(best["p"]) and best["difference"] == 0
    assert {row["best"] for row in (best, near, less, worst)} == {"ties"}
    assert near["tied"] and near["p"] == pytest.approx(0.5, abs=0.02)
    assert near["p_holm"] == near["p"]
    # 2 * 2^-10, and corrected for the two that are left.
    assert not less["tied"] and less["p"] == pytest.approx(2**-9, abs=1e-3)
    assert less["p_holm"] == pytest.approx(2 * less["p"])
    assert not worst["tied"] and worst["difference"] == pytest.approx(-0.2)
    assert worst["difference_low"] < -0.2 < worst["difference_high"]
    assert line(World(("ties", "{}", 9, 150), ("tsv_m", "{}", 9, 145)).table(alpha=0.001), "tsv_m")[
        "tied"
    ]


def test_one_model_and_more_than_one_are_compared_among_themselves() -> None:
    table = World(
        ("emr", "{}", 150, 190), ("logit_ensemble", "{}", 150, 150), ("ties", "{}", 150, 140)
    ).table()
    assert dict(zip(table["method"], table["best"], strict=True)) == {
        "emr": "emr",
        "logit_ensemble": "emr",
        "ties": "ties",
    }
    assert dict(zip(table["method"], table["gives"], strict=True)) == {
        "emr": "per_task",
        "logit_ensemble": "logits",
        "ties": "model",
    }
    assert line(table, "ties")["tied"] and not line(table, "logit_ensemble")["tied"]


def test_whoever_saw_test_images_is_compared_and_is_never_the_best() -> None:
    table = World(
        ("adamerging", "{}", 150, 170), ("ties", "{}", 150, 150), transductive="adamerging"
    ).table()
    seen = line(table, "adamerging")
    assert seen["transductive"] and seen["best"] == "ties" and seen["sees"] == "images"
    assert seen["difference"] == pytest.approx(0.1)
    assert line(table, "ties")["sees"] == "nothing"


def test_costs_are_those_of_the_chosen_entry() -> None:
    world = World(("ties", '{"density": 0.1}', 150, 150), ("ties", '{"density": 0.2}', 160, 150))
    named = world.selected[["model", "mode", "seed", "method", "options", "subset"]]
    costs = named.assign(prepare_seconds=[1.0, 2.0], bits_per_weight=0.0, storage_mb=[0.5, 0.25])
    found = line(world.table(costs), "ties")
    assert (found["prepare_seconds"], found["storage_mb"]) == (2.0, 0.25)
    assert np.isnan(line(world.table(), "ties")["prepare_seconds"])
    unknown = line(world.table(costs.assign(prepare_seconds=np.nan)), "ties")
    assert np.isnan(unknown["prepare_seconds"]) and unknown["storage_mb"] == 0.25


def test_a_grid_without_the_merge_is_refused_before_any_job() -> None:
    study = get_study("comparison")
    study.check(Field(("a", "b")), {("a", "b")})
    with pytest.raises(ConfigError, match=r"merge of a\+b, which is not on the grid"):
        study.check(Field(("a", "b")), {("a",), ("b",)})
    get_study("comparison", {"tasks": ["a"]}).check(Field(("a", "b")), {("a",)})


def test_what_is_missing_is_named() -> None:
    world = World(("ties", "{}", 150, 150), ("average", "{}", 100, 100))
    with pytest.raises(DataError, match=r"'negation' chose no point for the merge of a\+b"):
        world.table(study="negation")
    grid, world.grid = world.grid, world.grid[world.grid["split"] == "test"]
    with pytest.raises(DataError, match="lacks a row on task 'a' behind a chosen point"):
        world.table()
    world.grid = grid
    world.outcomes.clear()
    with pytest.raises(ArtifactError, match="outcomes behind average and ties"):
        world.table()
