"""Which studies ask for rows, and where the tables and figures of studies lie."""

from __future__ import annotations

import json

import pytest

from taskgrid.errors import ConfigError
from taskgrid.workflow import stages as settings
from tests.unit.workflow.example_experiment import BLOCK, experiment

FAIR = {"name": "shapley", "label": "fair", "options": {"draws": 50}}
VALUES = "results/tables/{}/values.parquet"


def test_a_study_that_reads_alone_changes_no_plan() -> None:
    plain, read = experiment(), experiment(studies=["addition", "shapley"])
    assert settings.merge.plan(plain, **BLOCK) == settings.merge.plan(read, **BLOCK)
    assert settings.evaluate.modules(plain, "average") == settings.evaluate.modules(read, "average")
    (asks,) = json.loads(settings.merge.plan(read, **BLOCK))["studies"]
    assert asks == {"name": "addition", "label": "addition", "options": {}}


def test_a_study_has_its_options_and_its_tables_by_its_label() -> None:
    given = experiment(studies=["addition", "shapley", FAIR])
    assert settings.studies.every_table(given) == [VALUES.format("shapley"), VALUES.format("fair")]
    known = json.loads(settings.studies.settings(given, "fair"))
    assert (known["name"], known["label"], known["options"]["draws"]) == ("shapley", "fair", 50)
    assert known["options"]["score"] == "accuracy" and known["tasks"] == list(given.tasks)


def test_a_figure_of_a_study_is_drawn_where_the_study_is_configured() -> None:
    assert "shapley" not in settings.figures.names(experiment())
    given = experiment(studies=["addition", "shapley", FAIR])
    assert "shapley" in settings.figures.names(given)
    files = settings.figures.tables(given, "shapley")
    assert files == [VALUES.format("shapley"), VALUES.format("fair")]
    listing = json.loads(settings.figures.listing(given, "shapley", files))
    assert [part["labels"] for part in listing["shapley/values"]] == [
        {"study": "shapley"},
        {"study": "fair"},
    ]
    with pytest.raises(
        ConfigError, match="'shapley' draws tables of the study 'shapley', which is"
    ):
        settings.figures.names(experiment(figures=["shapley"]))


def test_a_study_is_a_target() -> None:
    given = experiment(studies=["addition", "shapley"])
    assert settings.figures.of_study(given, "shapley") == [
        VALUES.format("shapley"),
        "results/figures/shapley.pdf",
        "results/figures/shapley.png",
    ]
    assert settings.figures.of_study(given, "addition") == ["results/tables/selected.parquet"]
