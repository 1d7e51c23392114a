"""Which studies ask for rows, and where the tables and figures of studies lie."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskgrid.config import Experiment
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


def test_a_study_knows_which_experts_were_brought_from_another_base() -> None:
    entry = {"from": "results", "model": "n", "mode": "lora", "to": "m"}
    learned = {"aligner": "orthogonal", "calibration": {"images": 4, "draw": 2}}
    given = experiment(
        models=[
            {"name": name, "architecture": "taskgrid-vit-4", "pretrained": "s0"} for name in "mn"
        ],
        transport=[
            {**entry, "name": "plain", "aligner": "none"},
            {**entry, "name": "few", **learned},
        ],
        studies=["transfer"],
    )
    known = json.loads(settings.studies.settings(given, "transfer"))["brought"]
    assert known["plain"] == {
        **{"aligner": "none", "images": None, "draw": 0, "mode": "lora", "carry": "vector"},
        "options": {"activation": "same", "tensors": "all"},
    }
    few = known["few"]
    assert (few["aligner"], few["images"], few["draw"]) == ("orthogonal", 4, 2)
    assert (
        few["options"]["orthogonality"] == "hard" and not {"images", "draw"} & few["options"].keys()
    )
    assert (
        json.loads(settings.studies.settings(experiment(studies=["transfer"]), "transfer"))[
            "brought"
        ]
        == {}
    )


def test_transports_that_a_study_would_take_for_one_another_are_refused() -> None:
    entry = {"from": "results", "model": "n", "mode": "lora", "to": "m", "aligner": "none"}
    models = [{"name": name, "architecture": "taskgrid-vit-4", "pretrained": "s0"} for name in "mn"]

    def given(*more: dict[str, Any]) -> Experiment:
        transports = [{**entry, "name": "first"}, *({**entry, **one} for one in more)]
        return experiment(models=models, transport=transports, studies=["addition", "transfer"])

    settings.studies.check(given({"name": "whole", "carry": "model"}))
    settings.studies.check(given({"name": "other", "options": {"tensors": "shared"}}))
    with pytest.raises(ConfigError, match="cannot tell transports 'first' and 'second' apart"):
        settings.studies.check(given({"name": "second", "mode": "standard"}))


CONTROL = [
    "textures",
    "handwritten",
    "street_digits",
    {"name": "catalogue", "expert": False},
]
SQUARE = ["textures", "handwritten", "street_digits", "catalogue"]


def test_a_block_has_the_control_of_its_single_tasks_and_the_fourth_task_of_its_triples() -> None:
    analogy = {"name": "analogy", "options": {"quadruples": [SQUARE]}}
    plain = experiment(tasks=CONTROL)
    assert settings.merge.tasks(plain, "average", "00000") == ("handwritten", "textures")
    negated = experiment(tasks=CONTROL, studies=["addition", "negation"])
    assert settings.merge.tasks(negated, "average", "00000") == (
        "catalogue",
        "handwritten",
        "textures",
    )
    # The second block has the single task street_digits, and the triple.
    assert "catalogue" in settings.merge.tasks(
        experiment(tasks=CONTROL, studies=[analogy]), "average", "00001"
    )
    for given in (plain, negated, experiment(tasks=CONTROL, studies=["addition", analogy])):
        settings.studies.check(given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"studies": ["negation"]}, "study 'negation' needs a control"),
        (
            {"studies": ["addition", {"name": "shapley", "options": {"study": "typo"}}]},
            "study: 'typo', which is not among studies; there are: addition, shapley",
        ),
        ({"studies": [{"name": "addition", "label": "eval"}]}, "'eval' is the name of a rule"),
        (
            {
                "tasks": CONTROL,
                "studies": [
                    {"name": "analogy", "options": {"quadruples": [SQUARE], "lambdas": [1e-30]}}
                ],
            },
            "study 'analogy': lambda 1e-30 needs more than 6 decimals",
        ),
        ({"tasks": CONTROL, "studies": ["analogy"]}, "study 'analogy' needs `quadruples`"),
        (
            {
                "tasks": CONTROL,
                "studies": [{"name": "analogy", "options": {"quadruples": [SQUARE]}}],
                "grid": {"subsets": {"up_to": 2}},
            },
            r"add \[handwritten, street_digits, textures\] to grid.subsets.include",
        ),
    ],
)
def test_what_a_study_cannot_ask_is_said_before_any_job(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        settings.studies.check(experiment(**changes))


def test_the_summary_has_no_column_of_a_control_task() -> None:
    known = json.loads(settings.tables.grid(experiment(tasks=CONTROL)))
    assert known["tasks"] == ["textures", "handwritten", "street_digits"]
