"""What the page knows is what the tables say."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from taskgrid.explorer import content as module
from taskgrid.explorer.content import content
from taskgrid.tracking.building.merges import subset_records
from tests.unit.example_tables import Example, example


def known(grid: pd.DataFrame, **more: Any) -> dict[str, Any]:
    methods = [
        {"label": name, "name": name, "options": {}, "gives": "model", "sum": False}
        for name in ("task_arithmetic", "average")
    ]
    return {"tasks": ["signs", *sorted(set(grid["task"]) - {"signs"})], "methods": methods} | {
        "files": [],
        **more,
    }


@pytest.fixture(scope="module")
def tables() -> Example:
    return example(tasks=4, modes=("standard", "lora"))


def merges(found: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(run, merge) for run in found["runs"] for merge in run["merges"]]


def test_every_row_of_a_merge_is_there_once(tables: Example) -> None:
    found = content(tables.grid, tables.selected, [], known(tables.grid))
    got = {}
    for run, merge in merges(found):
        at = (run["model"], run["mode"], run["seed"], merge["label"])
        for subset, rows in merge["subsets"].items():
            for split, point, task, correct, key, *_ in rows["rows"]:
                place = (*at, subset, merge["points"][point], found["tasks"][task], split)
                got[place] = (correct, run["n"][split][task], key)
    table = tables.grid[~tables.grid["method"].isin(["zeroshot", "expert"])]
    names = ["model", "mode", "seed", "method", "subset", "point", "task", "split"]
    wanted = {
        tuple(row[name] for name in names): (row["correct"], row["n"], row["key"])
        for row in table.to_dict("records")
    }
    assert got == wanted
    assert found["tasks"][0] == "signs"


def test_levels_are_those_of_the_base_and_of_the_own_expert(tables: Example) -> None:
    found = content(tables.grid, tables.selected, [], known(tables.grid))
    grid = tables.grid
    for run in found["runs"]:
        for at, task in enumerate(found["tasks"]):
            there = grid[(grid["task"] == task) & (grid["split"] == "val")]
            (zero,) = there.loc[there["method"] == "zeroshot", "correct"].unique()
            own = there[(there["method"] == "expert") & (there["subset"] == task)]
            own = own[(own["mode"] == run["mode"]) & (own["seed"] == run["seed"])]
            assert run["zeroshot"]["val"][at] == zero
            assert [run["expert"]["val"][at]] == own["correct"].tolist()


def test_what_was_chosen_is_what_the_table_says(tables: Example) -> None:
    found = content(tables.grid, tables.selected, [], known(tables.grid))
    got = sorted(
        (run["mode"], run["seed"], merge["label"], one["study"], one["subset"], one["point"])
        for run, merge in merges(found)
        for one in merge["chosen"]
    )
    names = ["mode", "seed", "method", "study", "subset", "point"]
    assert got == sorted(tables.selected[names].itertuples(index=False, name=None))


def test_runs_go_by_the_names_that_the_registry_has(tables: Example) -> None:
    found = content(tables.grid, tables.selected, [], known(tables.grid))
    got = {merge["run"] + subset for _, merge in merges(found) for subset in merge["subsets"]}
    records = subset_records(tables.grid, tables.selected, parent="grid/grid")
    assert got == {record.point_id for record in records}


def test_a_method_is_known_by_its_options_whatever_it_stores(tables: Example) -> None:
    stored = json.dumps({"density": 0.2, "storage": "T + 1"})
    grid = tables.grid.assign(
        options=tables.grid["options"].where(tables.grid["method"] != "average", stored)
    )
    methods = [
        {"label": "dense", "name": "average", "options": {"density": 0.5}},
        {"label": "sparse", "name": "average", "options": {"density": 0.2}},
    ]
    methods = [{**one, "gives": "per_task", "sum": False} for one in methods]
    found = content(grid, tables.selected, [], known(grid, methods=methods))
    labels = {merge["title"].split(",")[0]: merge["label"] for _, merge in merges(found)}
    assert set(labels.values()) == {"sparse", None}


def test_of_a_large_grid_chosen_points_alone_keep_their_keys(
    tables: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_KEYS", 10)
    found = content(tables.grid, tables.selected, [], known(tables.grid))
    for _, merge in merges(found):
        chosen = {(one["subset"], one["point"]) for one in merge["chosen"]}
        for subset, rows in merge["subsets"].items():
            for _, point, _, _, key, *_ in rows["rows"]:
                assert bool(key) == ((subset, merge["points"][point]) in chosen)
