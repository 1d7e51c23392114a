"""The study joins what was seen of runs, and refuses merges that there are not."""

from __future__ import annotations

import pandas as pd
import pytest

from taskgrid.errors import ConfigError
from taskgrid.plugins.cards import study_card
from taskgrid.studies import get_study
from taskgrid.studies.seam import Field, Results
from taskgrid.studies.tables import study_table
from tests.unit.example_features import measured

FIELD = Field(trained=("a", "b", "c"))


def results(table: str) -> Results:
    return Results(
        "features",
        pd.DataFrame(),
        pd.DataFrame(),
        dict,
        ("a", "b"),
        measured=measured("features", table),
    )


@pytest.mark.parametrize("table", study_card("features").tables)
def test_runs_stand_in_the_order_of_their_names(table: str) -> None:
    first, second = measured("features", table)
    made = study_table("features", {}, table, results(table))
    assert made.num_rows == first.num_rows + second.num_rows
    seeds = made["seed"].to_pylist()
    assert seeds == sorted(seeds) and made.slice(0, second.num_rows).equals(second)


def test_without_a_run_the_tables_are_empty() -> None:
    nothing = Results("features", pd.DataFrame(), pd.DataFrame(), dict, ())
    made = study_table("features", {}, "bias", nothing)
    assert made.num_rows == 0 and "l1_left" in made.schema.names


def test_a_merge_that_is_not_on_the_grid_is_refused() -> None:
    grid = {("a",), ("b",), ("a", "b")}
    get_study("features", {"subsets": [["b", "a"], ["b"]]}).check(FIELD, grid)
    with pytest.raises(
        ConfigError, match=r"merge of a\+b\+c, which is not on the grid; add it to grid"
    ):
        get_study("features").check(FIELD, grid)
    with pytest.raises(ConfigError, match=r"merge of a\+k"):
        get_study("features", {"subsets": [["a", "k"]]}).check(FIELD, grid)
