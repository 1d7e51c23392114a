"""What is registered as a model, and when."""

from __future__ import annotations

import json

import pytest

from taskgrid.errors import ConfigError
from taskgrid.tracking.building.merges import subset_records
from taskgrid.workflow.settings import register, registry
from tests.unit.example_tables import example
from tests.unit.workflow.example_experiment import RUN, experiment

ON = {"models": True}
ALL = "handwritten+mnist+textures"


def test_models_are_registered_only_when_asked() -> None:
    assert register.files(experiment()) == []
    folder = "results/registered/m/standard/0"
    assert register.files(experiment(tracking=ON)) == [
        *(
            f"{folder}/expert/{task}/open_clip_config.json"
            for task in ("textures", "mnist", "handwritten")
        ),
        *(
            f"{folder}/merge/{method}/open_clip_config.json"
            for method in ("task_arithmetic", "average")
        ),
    ]


def test_what_no_file_can_hold_as_it_was_measured_is_left_out() -> None:
    grid = {"methods": ["average", "emr", "logit_ensemble"]}
    modes = ["standard", "linear"]
    asked = experiment(tracking=ON, grid=grid, finetune={"modes": modes})
    folders = {path.rpartition("/")[0] for path in register.files(asked)}
    assert {path for path in folders if "merge" in path} == {
        "results/registered/m/standard/0/merge/average"
    }
    assert not [path for path in folders if "linear" in path]


def test_a_method_that_merges_other_subsets_only_is_left_out() -> None:
    pairs = {"name": "ties", "subsets": {"sizes": [2]}}
    asked = experiment(tracking=ON, grid={"methods": ["average", pairs]})
    merges = [path for path in register.files(asked) if "merge" in path]
    assert [path.split("/")[-2] for path in merges] == ["average"]


@pytest.mark.parametrize(
    "change", [{"grid": {"subsets": {"sizes": [1, 2]}}}, {"studies": ["shapley"]}]
)
def test_a_merge_of_all_tasks_must_be_there_and_chosen(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"let grid\.subsets hold it and studies name addition"):
        register.files(experiment(tracking=ON, **change))
    assert register.files(experiment(**change)) == []


def test_the_point_is_that_which_was_chosen_and_the_record_that_of_the_merge() -> None:
    asked = experiment(tracking=ON)
    at = {**RUN, "method": "average"}
    known = json.loads(register.merged(asked, **at))
    assert known["point"] is None and known["subset"] == ALL
    assert register.choices(asked, **at) == "results/eval/m/standard/0/average/00001/choices.json"
    tables = example(
        tasks=3,
        seeds=(0,),
        methods=("average",),
        options=(json.dumps(known["options"]),),
        lambdas=("0.00", "1.00"),
        steps=3,
    )
    names = {"model": "m", "mode": "standard", "subset": ALL}
    (record,) = {r.point_id for r in subset_records(tables.grid.assign(**names), tables.selected)}
    assert known["identity"]["record"] == record


def test_an_expert_is_known_by_its_record() -> None:
    identity = json.loads(register.expert(experiment(), **RUN, task="mnist"))["identity"]
    assert identity["record"] == "expert/m/standard/0/mnist"
    found = register.expert_files(experiment(), **RUN, task="mnist")
    assert found.settled == ["results/experts/m/standard/0/mnist/expert.safetensors"]


def test_the_command_that_writes_a_point_is_told_where_it_is_what_was_measured() -> None:
    methods = ["average", "emr", "logit_ensemble", {"name": "ties", "label": "mine"}]
    asked = experiment(grid={"methods": methods}, finetune={"modes": ["standard", "linear"]})
    where = "snakemake --cores 1 results/export/{model}/{mode}/{seed}"
    told = {label: registry.export_command(asked, "standard", label) for label in asked.methods}
    assert told == {
        "average": f"{where}/average/{{subset}}/{{point}}.safetensors",
        "emr": f"{where}/emr/{{subset}}/{{point}}@{{task}}.safetensors",
        "logit_ensemble": None,
        "mine": f"{where}/mine/{{subset}}/{{point}}.safetensors",
    }
    assert registry.export_command(asked, "linear", "average") is None
