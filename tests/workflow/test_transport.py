"""Experts of another run's base in this run: brought over, merged, measured, recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskgrid.store.weights import load_state
from tests.plugins.installed import install
from tests.workflow.conftest import GRID, Checkout

pytestmark = pytest.mark.workflow

SOURCE, TARGET = "taskgrid-vit-4-s0", "taskgrid-vit-4-s1"
BOTH = [
    {"name": f"taskgrid-vit-4-{tag}", "architecture": "taskgrid-vit-4", "pretrained": tag}
    for tag in ("s0", "s1")
]
INSIDE = {"from": "results", "model": SOURCE, "mode": "standard", "to": TARGET}
"""Experts of one base of a run, for another of the same run."""


@pytest.fixture
def run_b(finished: Checkout, tmp_path: Path) -> Checkout:
    """A run of the other shipped base, with the experts of the finished run and none of its own."""
    run = finished.copy_to(tmp_path / "b")
    run.config["models"] = BOTH[1:]
    run.config["tasks"] = run.config["tasks"][:2]
    run.config["finetune"]["modes"] = []
    run.config["grid"]["methods"] = ["task_arithmetic"]
    run.config["figures"] = ["transfer"]
    run.config["studies"] = ["addition", "transfer"]
    run.config["transport"] = [
        {
            "name": "theirs",
            "from": str(finished / "results"),
            "model": SOURCE,
            "mode": "standard",
            "aligner": "none",
        }
    ]
    return run


def test_experts_of_another_base_are_rows_like_any_others(
    finished: Checkout, run_b: Checkout
) -> None:
    planned = run_b.plan()
    assert planned["transport"] == planned["taskvector"] == 2
    # One transport for the two bases, whatever the number of tasks.
    assert planned["align"] == 1
    assert not {"finetune", "verify_expert", "import_expert"} & planned.keys()
    targets = (GRID, "experts", "results/figures/transfer.png")
    run_b.run(*targets)

    grid = run_b.table("grid.parquet")
    assert set(grid["mode"].dropna()) == {"theirs"}
    merged = grid[(grid["method"] == "task_arithmetic") & (grid["split"] == "val")]
    assert set(merged["subset"]) == {"a", "b", "a+b"} and set(merged["scale"]) == {0, 0.5, 1}
    assert set(grid[grid["method"] == "expert"]["subset"]) == {"a", "b"}
    assert set(run_b.table("selected.parquet")["mode"]) == {"theirs"}

    curves = run_b.table("transfer/curves.parquet")
    assert set(curves["coefficient"]) == {"one", "chosen"} and set(curves["aligner"]) == {"none"}
    own = grid[(grid["method"] == "expert") & (grid["split"] == "test")]
    one = curves[curves["coefficient"] == "one"]
    assert one["accuracy"].item() == pytest.approx(own["accuracy"].mean())
    assert one[["images", "ceiling"]].isna().all(axis=None)

    folder = f"experts/{TARGET}/theirs/0/a"
    manifest = run_b.json(f"results/{folder}/expert.json")
    card = run_b.json(f"results/models/{TARGET}/base.json")
    source = finished.json(f"results/models/{SOURCE}/base.json")
    assert (manifest["base"], manifest["source_base"]) == (card["base"], source["base"])
    assert manifest["base"] != manifest["source_base"]
    theirs = finished.json(f"results/experts/{SOURCE}/standard/0/a/expert.json")
    assert manifest["source_expert"] == theirs["digest"]
    aligned = run_b.json(f"results/alignments/{TARGET}/theirs/0/bases.json")
    assert manifest["alignment"] == aligned["digest"]
    assert (aligned["base"], aligned["source_base"]) == (card["base"], source["base"])
    (record,) = run_b.json(f"results/{folder}/run.json")["records"]
    assert record["params"]["transport.aligner"] == "none"
    assert record["tags"]["lineage.source_base"] == source["base"]

    base, expert, origin, there = (
        load_state(checkout / "results" / path)[0]
        for checkout, path in (
            (run_b, f"models/{TARGET}/base.safetensors"),
            (run_b, f"{folder}/expert.safetensors"),
            (finished, f"models/{SOURCE}/base.safetensors"),
            (finished, f"experts/{SOURCE}/standard/0/a/expert.safetensors"),
        )
    )
    for key, tensor in expert.items():
        exact = base[key].double() + (there[key].double() - origin[key].double()).float().double()
        assert (tensor == exact.float()).all()

    assert not run_b.plan(*targets)
    # Another way of bringing them over changes what comes after them, and nothing else.
    run_b.config["transport"][0]["options"] = {"tensors": "shared"}
    again = run_b.plan(*targets)
    assert (
        again["transport"] == 2
        and again["align"] == 1
        and not {"dataset", "head", "base"} & again.keys()
    )


def test_two_bases_of_one_run_are_aligned_by_images_and_by_labels(
    finished: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(install(site)))
    run = finished.copy_to(tmp_path / "both")
    run.config["models"] = BOTH
    calibration: dict[str, Any] = {"tasks": ["b"], "images": 8}
    labels: dict[str, Any] = {"images": 4}
    run.config["transport"] = [
        # Carried whole, the expert is far from its new base, and has a vector all the same.
        {
            **INSIDE,
            "name": "theirs",
            "aligner": "together",
            "calibration": calibration,
            "carry": "model",
        },
        {
            **INSIDE,
            "name": "tuned",
            "aligner": "few_shot",
            "options": {"steps": 3},
            "calibration": labels,
        },
        {**INSIDE, "name": "turned", "aligner": "orthogonal", "calibration": {"images": 4}},
    ]
    target, tuned, turned = (
        f"results/vectors/{TARGET}/{name}/0/a.json" for name in ("theirs", "tuned", "turned")
    )
    assert run.plan(tuned, turned)["align"] == 2
    planned = run.plan(target, tuned)
    assert planned["align"] == planned["transport"] == planned["taskvector"] == 2
    run.run(target, tuned)

    manifest = run.json(f"results/experts/{TARGET}/theirs/0/a/expert.json")
    assert (manifest["source_model"], manifest["carry"]) == (SOURCE, "model")
    aligned = run.json(f"results/alignments/{TARGET}/theirs/0/bases.json")
    assert manifest["alignment"] == aligned["digest"]
    assert aligned["b.split"] == run.json("results/splits/24px/b.json")["digest"]
    assert not {"a.split", "b.head"} & aligned.keys()
    # One that learns from labels has a transport for each task.
    aligned = run.json(f"results/alignments/{TARGET}/tuned/0/a.json")
    head = run.json(f"results/heads/{TARGET}/a.json")["digest"]
    assert aligned["a.head"] == head and not {"b.head", "b.split"} & aligned.keys()
    expert = run.json(f"results/experts/{TARGET}/tuned/0/a/expert.json")
    assert expert["alignment"] == aligned["digest"]

    # Another task changes nothing for those that are named; without names it is looked at, too.
    run.config["tasks"].append({"name": "d", "source": "npz", "path": "data/d/d.npz"})
    assert not run.plan(target, tuned)
    del calibration["tasks"]
    # Another draw of the images is another transport; the other task's is not asked for.
    labels["draw"] = 1
    again = run.plan(target, tuned)
    assert (again["align"], again["transport"], again["dataset"]) == (2, 2, 1)
    assert "base" not in again
    calibration["tasks"] = ["nobody"]
    refused = run.snakemake(target, "-n")
    assert refused.code and "calibration.tasks names task 'nobody'" in refused.text


def test_experts_of_both_bases_stand_in_one_set(finished: Checkout, tmp_path: Path) -> None:
    run = finished.copy_to(tmp_path / "across")
    run.config["models"] = BOTH
    run.config["transport"] = [{**INSIDE, "name": "theirs", "aligner": "none"}]
    run.config["experts"] = [
        {
            "name": "across",
            "format": "open_clip",
            "model": TARGET,
            "source": f"results/experts/{TARGET}/{{task}}/expert.safetensors",
            "names": {"a": "standard/0/a", "b": "theirs/0/b", "c": "theirs/0/c"},
            "check": {"tolerance": 0.99},
        }
    ]
    planned = run.plan(*(f"results/vectors/{TARGET}/across/0/{task}.json" for task in "ab"))
    wanted = {"finetune": 1, "transport": 1, "import_expert": 2, "verify_expert": 2}
    assert {rule: planned[rule] for rule in wanted} == wanted


def test_another_run_that_lacks_an_expert_is_named(run_b: Checkout) -> None:
    run_b.config["transport"][0]["seed"] = 7
    outcome = run_b.snakemake("-n")
    assert outcome.code and "standard/7/a/expert.json" in outcome.text
    run_b.config["transport"][0]["from"] = "nowhere"
    outcome = run_b.snakemake("-n")
    assert "transport 'theirs': there is no folder nowhere" in outcome.text
