"""Laws that every registered study keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskgrid import plugins
from taskgrid.evaluation.plan.setting import Request
from taskgrid.lattice.subsets import parse_subset
from taskgrid.plugins.cards import figure_card, study_card
from taskgrid.provenance import derive_seed
from taskgrid.store.columns import card_columns
from taskgrid.studies import get_study
from taskgrid.studies.seam import Field, Question
from tests.unit.example_plans import setting
from tests.unit.example_studies import Ran, ran

# What a study cannot do without. A study that is not here does with its defaults.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "analogy": {"quadruples": [["a", "b", "c", "k"], ["a", "c", "b", "k"]]},
    "shapley": {"draws": 20},
}
STUDIES = plugins.names("study")
ASKING = [name for name in STUDIES if study_card(name).rule]
FIELD = Field(trained=("a", "b", "c"), control=("k",))
SUBSETS = ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]


def options(name: str) -> Mapping[str, Any]:
    return OPTIONS.get(name, {})


def questions(name: str, field: Field = FIELD) -> list[Question]:
    study = get_study(name, options(name))
    return [one for subset in SUBSETS for one in study.questions(parse_subset(subset), field)]


def law(request: Request) -> float:
    """Rugged, but the same for the same weights and task."""
    weights = request.weights
    named = (weights.kind, *weights.subset, weights.point, request.task, request.split)
    return 0.2 + 0.6 * float(np.random.default_rng(derive_seed(*named)).random())


def run(folder: Path, *names: str, lambdas: tuple[str, ...] = ("0.00", "0.50", "1.00")) -> Ran:
    ours = setting(("a", "b", "c"), control=("k",))
    return ran(folder, law, ours, {name: options(name) for name in names}, SUBSETS, lambdas)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(tmp_path_factory.mktemp("together"), *ASKING)


@pytest.mark.parametrize("name", STUDIES)
def test_law_questions_are_the_same_each_time_and_about_tasks_that_there_are(name: str) -> None:
    asked = questions(name)
    assert asked == questions(name)
    assert len({(one.subset, one.about) for one in asked}) == len(asked)
    assert bool(asked) == (name in ASKING)
    for one in asked:
        assert set(one.tasks) <= {*FIELD.trained, *FIELD.control}
        assert list(one.tasks) == sorted(set(one.tasks)) and one.subset == tuple(sorted(one.subset))


@pytest.mark.parametrize("name", STUDIES)
def test_law_questions_are_the_same_where_only_their_own_tasks_are_known(name: str) -> None:
    study = get_study(name, options(name))
    for subset in map(parse_subset, SUBSETS):
        asked = study.questions(subset, FIELD)
        known = {task for one in asked for task in one.tasks}.union(subset)
        block = Field(
            tuple(task for task in FIELD.trained if task in known),
            tuple(task for task in FIELD.control if task in known),
        )
        assert study.questions(subset, block) == asked


@pytest.mark.parametrize("name", STUDIES)
def test_law_what_it_asks_by_default_passes_its_own_check(name: str) -> None:
    get_study(name, options(name)).check(FIELD, {parse_subset(subset) for subset in SUBSETS})


@pytest.mark.parametrize("name", ASKING)
def test_law_the_chosen_point_is_among_those_measured_and_alone_on_test(
    name: str, tmp_path: Path
) -> None:
    alone = run(tmp_path, name)
    assert alone.of(name)
    merges = alone.grid[alone.grid["role"] == "selected"]
    tested = set(zip(merges["subset"], merges["task"], merges["point"], strict=True))
    for chosen in alone.of(name):
        for task in chosen.tasks:
            assert chosen.point in alone.measured(chosen.subset, task)
            tested.discard((chosen.subset, task, chosen.point))
    assert not tested


@pytest.mark.parametrize("name", ASKING)
def test_law_what_other_studies_measure_changes_no_choice(
    name: str, together: Ran, tmp_path: Path
) -> None:
    assert run(tmp_path, name).of(name) == together.of(name)


@pytest.mark.parametrize(
    ("name", "table"), [(name, table) for name in STUDIES for table in study_card(name).tables]
)
def test_law_its_tables_have_the_columns_on_its_card(name: str, table: str, together: Ran) -> None:
    made = together.table(name, table, options(name))
    columns = card_columns(study_card(name).tables[table])
    assert made.num_rows and made.schema.names == list(columns)
    assert made == together.table(name, table, options(name))


@pytest.mark.parametrize("name", STUDIES)
def test_law_its_figures_draw_its_tables(name: str) -> None:
    card = study_card(name)
    drawn = {one for figure in card.figures for one in figure_card(figure).tables}
    assert {f"{name}/{table}" for table in card.tables} <= drawn
