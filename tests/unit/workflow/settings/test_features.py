"""What is looked at of a run, and where it comes from and goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from taskgrid.errors import ConfigError
from taskgrid.workflow import stages as settings
from taskgrid.workflow.listing import Listing
from tests.unit.workflow.example_experiment import RUN, experiment

AT = {**RUN, "study": "features"}
STUDIES = ["addition", "features"]
ADA = {"name": "adamerging", "label": "ada", "options": {"steps": 2}}


def test_it_is_off_by_default_and_then_nothing_is_looked_at() -> None:
    plain = experiment()
    assert settings.features.labels(plain) == []
    assert not any("features" in file for file in settings.studies.every_table(plain))
    assert not {"feature_maps", "weight_norms"} & set(settings.figures.names(plain))


def test_the_choices_of_all_methods_for_the_merge_of_all_tasks_are_read() -> None:
    given = experiment(studies=STUDIES)
    at = "results/eval/m/standard/0/{}/00001/choices.json"
    assert settings.features.choices(given, **AT) == [
        at.format("task_arithmetic"),
        at.format("average"),
    ]
    pairs = {"name": "features", "options": {"subsets": [["textures", "mnist"], ["handwritten"]]}}
    files = settings.features.choices(experiment(studies=["addition", pairs]), **AT)
    assert [file.split("/")[-2] for file in files] == ["00000", "00001"] * 2


def test_settings_say_what_is_looked_at() -> None:
    options = {"images": 5, "lambdas": [0.5]}
    given = experiment(
        studies=["addition", {"name": "features", "options": options}],
        grid={"methods": ["average", "logit_ensemble"]},
    )
    known = json.loads(settings.features.run(given, **AT))
    asked = known.pop("asked")
    assert known == {"model": "m", "mode": "standard", "seed": 0}
    assert (asked["study"], asked["images"], asked["lambdas"]) == ("addition", 5, [0.5])
    assert asked["weights_at"][-1] == 2
    # Merged logits have no network to look into.
    assert [*asked["methods"]] == ["average"]
    assert asked["methods"]["average"]["name"] == "average"
    assert asked["methods"]["average"]["subsets"] == ["handwritten+mnist+textures"]
    assert settings.features.networks(given, "standard", "features") == 1 * 1 * (2 + 2)


def test_of_modes_that_are_named_the_others_are_not_looked_at() -> None:
    study = {"name": "features", "options": {"modes": ["attention"]}}
    given = experiment(studies=["addition", study], finetune={"modes": ["standard", "attention"]})
    assert settings.studies.measured(given, "features", "bias") == [
        "results/features/m/attention/0/features/bias.parquet"
    ]
    study["options"] = {"modes": ["atention"]}
    given = experiment(studies=["addition", study], finetune={"modes": ["standard", "attention"]})
    with pytest.raises(ConfigError, match="has modes with 'atention'; did you mean 'attention'"):
        settings.features.check(given)


def test_a_method_is_looked_at_where_it_merges_what_is_asked_for() -> None:
    given = experiment(
        studies=STUDIES,
        finetune={"modes": ["standard", "attention"]},
        grid={
            "methods": [
                "task_arithmetic",
                {"name": "slerp", "subsets": {"sizes": [2]}},
                {"name": "average", "modes": ["attention"]},
            ]
        },
    )
    every = ["handwritten+mnist+textures"]
    assert settings.features.merges(given, "standard", "features") == {"task_arithmetic": every}
    assert settings.features.merges(given, "attention", "features") == {
        "task_arithmetic": every,
        "average": every,
    }
    assert settings.features.modules(given, "standard", "features") == [
        "taskgrid.merging.methods.task_arithmetic"
    ]


def test_what_was_learned_is_listed_by_method_and_subset() -> None:
    given = experiment(studies=STUDIES, grid={"methods": ["average", ADA]})
    files = settings.features.files(given, **AT)
    listing = Listing.read(json.loads(files.listing(files.followed, files.settled)))
    every = "handwritten+mnist+textures"
    assert [*listing.files().learned] == [f"ada/{every}"]
    assert f"results/learned/m/standard/0/ada/{every}/coefficients.json" in files.followed
    assert f"results/learned/m/standard/0/ada/{every}/tensors.safetensors" in files.settled
    assert listing.files().tasks.keys() == listing.manifests().keys() == set(given.trained)


def test_its_tables_are_joined_from_a_file_of_each_run() -> None:
    given = experiment(
        studies=["addition", {"name": "features", "label": "inside"}], finetune={"seeds": [0, 1]}
    )
    assert settings.studies.measured(given, "inside", "bias") == [
        f"results/features/m/standard/{seed}/inside/bias.parquet" for seed in (0, 1)
    ]
    assert settings.studies.measured(given, "addition", "bias") == []
    assert "results/tables/inside/bias.parquet" in settings.studies.every_table(given)
    assert "feature_maps" in settings.figures.names(given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"studies": ["features"]}, "study: 'addition', which is not among studies"),
        (
            {"studies": STUDIES, "grid": {"subsets": {"up_to": 2}}},
            r"handwritten\+mnist\+textures, which is not on the grid",
        ),
        (
            {"studies": STUDIES, "finetune": {"modes": ["linear"]}},
            "'features' looks at networks as they are, but all experts are evaluated as tangent",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_said_before_any_job(
    changes: dict[str, Any], words: str
) -> None:
    given = experiment(**changes)
    with pytest.raises(ConfigError, match=words):
        settings.studies.check(given)
        settings.features.check(given)


def test_tangent_runs_beside_others_are_left_out() -> None:
    given = experiment(studies=STUDIES, finetune={"modes": ["standard", "linear"]})
    settings.features.check(given)
    (file,) = settings.studies.measured(given, "features", "norms")
    assert "/standard/" in file
