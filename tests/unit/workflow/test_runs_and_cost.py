"""Files of runs, experts, blocks and lattices; and what jobs ask of a machine."""

from __future__ import annotations

import re

import pytest

from taskgrid.lattice.blocks import Block, wide_blocks_of
from taskgrid.workflow import cost, paths, project, runs
from taskgrid.workflow.settings import tables
from tests.unit.workflow.example_experiment import experiment

LATTICE = {"budget": 30, "lambdas": [0.3], "audit": 19}


def test_blocks_are_listed_per_run_and_method() -> None:
    assert runs.block_files(experiment(), paths.BLOCK_ROWS, experiment().runs) == [
        f"results/eval/m/standard/0/{method}/{block}/rows.parquet"
        for method in ("task_arithmetic", "average")
        for block in ("00000", "00001")
    ]


def test_a_method_merges_the_experts_and_subsets_that_it_is_given() -> None:
    pairs = {"name": "slerp", "subsets": {"sizes": [2]}}
    whole = {"name": "average", "modes": ["attention"], "subsets": {"leave_out": 0}}
    given = experiment(
        finetune={"modes": ["standard", "attention"]},
        grid={
            "methods": ["task_arithmetic", pairs, whole],
            "subsets": {"sizes": [1]},
            "block_size": 64,
        },
    )
    found = runs.block_files(given, paths.BLOCK_ROWS, given.runs)
    assert [tuple(file.split("/")[3:6:2]) for file in found] == [
        ("standard", "task_arithmetic"),
        ("standard", "slerp"),
        ("attention", "task_arithmetic"),
        ("attention", "slerp"),
        ("attention", "average"),
    ]
    assert {method: given.subsets(method) for method in given.methods} == {
        "task_arithmetic": ("textures", "mnist", "handwritten"),
        "slerp": ("mnist+textures", "handwritten+textures", "handwritten+mnist"),
        "average": ("handwritten+mnist+textures",),
    }
    assert given.numbers == (1, 2, 3, 4, 5, 6, 7)
    costs = tables.costs(given)
    assert [(part["labels"]["mode"], part["method"]) for part in costs] == [
        tuple(file.split("/")[3:6:2]) for file in found
    ]


def test_experts_that_nobody_merges_are_not_compared() -> None:
    only = {"name": "average", "modes": ["posthoc"]}
    given = experiment(
        finetune={"modes": ["standard", "attention"]},
        grid={"methods": [only]},
        evaluation={"posthoc": "attention"},
    )
    assert [run.mode for run in runs.merged_runs(given)] == ["attention"]
    assert runs.merged_runs(experiment()) == list(experiment().expert_runs)


@pytest.mark.parametrize("tasks", [3, 20])
def test_every_label_of_a_block_is_what_rules_take_for_one(tasks: int) -> None:
    full = (1 << tasks) - 1
    for block in (*wide_blocks_of([1, 2, 3], 1), *wide_blocks_of(range(full - 5, full + 1), 2)):
        assert re.fullmatch(project.BLOCK, block.label)
        assert Block.parse(block.label, block.stop - block.start if block.span == 1 else 2) == block


def test_records_are_of_experts_and_of_blocks() -> None:
    files = runs.record_files(experiment())
    assert files[:3] == [
        f"results/experts/m/standard/0/{task}/run.json"
        for task in ("textures", "mnist", "handwritten")
    ]
    assert len(files) == 3 + 4


def test_tangent_runs_need_no_budget_and_plain_ones_have_no_exact_curve() -> None:
    both = experiment(finetune={"modes": ["standard", "linear"]}, lattice=LATTICE)
    assert [run.mode for run in runs.tangent_runs(both)] == ["linear"]
    assert [run.mode for run in runs.plain_runs(both)] == ["standard"]
    assert [(each["mode"], each["method"]) for each in runs.lattices(both)] == [
        ("standard", "task_arithmetic"),
        ("standard", "average"),
    ]
    assert runs.lattices(experiment()) == []
    learned = experiment(grid={"methods": ["adamerging"]}, lattice=LATTICE)
    assert runs.lattices(learned) == []


def test_only_a_reduced_precision_is_proven() -> None:
    assert runs.proven_runs(experiment()) == []
    reduced = experiment(evaluation={"precision": "bf16"})
    assert runs.proven_runs(reduced) == list(reduced.runs)


def test_memory_grows_by_towers_and_vectors() -> None:
    small = experiment()
    tower = 4 * small.parameters("m") / 1e6
    assert cost.memory(small, "m", 1000, 5) == round(1000 + 5 * tower)
    assert cost.memory(small, "m", 1000, 5, vectors=True) == round(1000 + 8 * tower)
    assert cost.lattice_memory(experiment(lattice=LATTICE), "m") >= cost.memory(
        small, "m", 5000, 8, vectors=True
    )


@pytest.mark.parametrize(
    ("architecture", "factor"), [("taskgrid-vit-4", 1), ("ViT-B-32", 1), ("ViT-L-14", 10)]
)
def test_minutes_follow_the_model_up_to_eight_hours(architecture: str, factor: float) -> None:
    one = {"name": "m", "architecture": architecture, "pretrained": "openai"}
    given = experiment(
        models=[{**one, "pretrained": "s0"} if factor == 1 and "4" in architecture else one]
    )
    assert cost.minutes(given, "m", 10) >= 10 * factor
    assert cost.minutes(given, "m", 470) <= 8 * 60
    assert cost.minutes(given, "m", 2000) == 2000


def test_fp32_takes_longer_than_bf16() -> None:
    assert cost.evaluation_minutes(experiment(), "m", 10, 40) == 40
    reduced = experiment(evaluation={"precision": "bf16"})
    assert cost.evaluation_minutes(reduced, "m", 10, 40) == 10


def test_a_job_asks_for_a_gpu_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [experiment(device=name) for name in ("cpu", "auto", "cuda")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [cost.visible_gpus(one) for one in asked] == [0, 2, 2]
    assert [cost.gpus(one, 2, elsewhere=False) for one in asked] == [0, 1, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [cost.gpus(one, 0, elsewhere=False) for one in asked] == [0, 0, 1]
    assert [cost.gpus(one, 0, elsewhere=True) for one in asked] == [0, 1, 1]


def test_a_small_experiment_is_one_of_made_tasks_and_small_towers() -> None:
    one = {"name": "m", "architecture": "ViT-B-32", "pretrained": "openai"}
    assert not cost.is_small(experiment(models=[one]))
    assert not cost.is_small(experiment())


def test_made_pixels_are_decoded_by_one_thread() -> None:
    assert cost.decoders(experiment(), "textures") == 1
    assert cost.decoders(experiment(), "mnist") == 1


def test_tables_ask_for_as_much_as_the_grid_has_rows() -> None:
    assert cost.table_memory(experiment()) == 4000
    sweep = {"start": 0, "stop": 1, "step": 0.001}
    many = experiment(grid={"lambdas": sweep}, finetune={"seeds": list(range(200))})
    # Seven subsets hold twelve tasks; two methods with 1,001 points and the chosen one, 200 seeds.
    assert cost.table_memory(many) == round(1000 + 0.003 * 200 * 2 * 1002 * 12)
