"""The whole flow for real: tables, registry, report, user data, and a killed training."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.unit.example_margins import held
from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.workflow

GRID_COLUMNS = {
    *("model", "mode", "seed", "method", "options", "subset", "size", "point", "scale", "task"),
    *("role", "accuracy_low", "accuracy_high"),
    *("in_subset", "split", "n", "correct", "accuracy", "normalized_accuracy", "nll", "ece", "key"),
}


def test_the_grid_has_every_point_once(finished: Checkout) -> None:
    grid = finished.table("grid.parquet")
    assert set(grid.columns) >= GRID_COLUMNS
    point = ["model", "mode", "seed", "method", "options", "subset", "point", "task", "split"]
    assert not grid.duplicated(point).any()
    val = grid[(grid["split"] == "val") & ~grid["method"].isin(["zeroshot", "expert"])]
    # 7 subsets of 3 tasks hold 12 (subset, task) pairs; 3 lambdas; 2 methods.
    assert len(val) == 12 * 3 * 2
    test = grid[(grid["split"] == "test") & ~grid["method"].isin(["zeroshot", "expert"])]
    assert len(test) == 12 * 2
    assert len(grid[grid["method"] == "expert"]) == 3 * 3 * 2
    assert len(grid[grid["method"] == "zeroshot"]) == 3 * 2
    assert (grid["accuracy"] == grid["correct"] / grid["n"]).all()


def test_lambda_zero_is_the_base_and_one_task_at_lambda_one_the_expert(finished: Checkout) -> None:
    grid = finished.table("grid.parquet")
    val = grid[grid["split"] == "val"].set_index(["method", "subset", "point", "task"])["nll"]
    for task in "abc":
        zeroshot = val["zeroshot", "", "0.00", task]
        expert = val["expert", task, "1.00", task]
        for method in ("task_arithmetic", "average"):
            assert val[method, task, "0.00", task] == zeroshot
            assert val[method, "a+b+c", "0.00", task] == zeroshot
            # Logits of about ten are rounded to float32: of small losses that is a larger part.
            assert val[method, task, "1.00", task] == pytest.approx(expert, rel=1e-6, abs=1e-6)


def test_the_chosen_lambda_is_the_first_maximum_on_validation(finished: Checkout) -> None:
    grid, selected = finished.table("grid.parquet"), finished.table("selected.parquet")
    val = grid[grid["split"] == "val"]
    own = val[val["method"] == "expert"]
    own = own[own["subset"] == own["task"]].set_index("task")["accuracy"]
    assert len(selected) == 14
    for row in selected.itertuples():
        rows = val[(val["method"] == row.method) & (val["subset"] == row.subset)]
        scores = {
            scale: (part.set_index("task")["accuracy"] / own).dropna().mean()
            for scale, part in rows.groupby("point")
        }
        best = max(sorted(scores, key=float), key=lambda scale: round(scores[scale], 12))
        assert row.point == best and row.scale == float(best)


def test_the_registry_holds_a_run_per_expert_and_merge(checkout: Checkout) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{checkout / 'results/mlflow.db'}")
    experiments = client.search_experiments()
    runs = client.search_runs([experiment.experiment_id for experiment in experiments])
    kinds = [run.data.tags["kind"] for run in runs]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "expert": 3,
        "subset": 14,
        "grid": 1,
    }
    assert all(run.info.status == "FINISHED" for run in runs)
    experts = [run for run in runs if run.data.tags["kind"] == "expert"]
    assert all(0 < run.data.metrics["accuracy/test"] <= 1 for run in experts)
    (merge,) = (run for run in runs if run.info.run_name == "task_arithmetic 3 · a, b, c")
    point = merge.data.params["lambda"]
    assert merge.data.tags["export"].endswith(f"/task_arithmetic/a+b+c/{point}.safetensors")
    before = len(runs)
    checkout.run("registry")
    after = client.search_runs([experiment.experiment_id for experiment in experiments])
    assert len(after) == before


def test_models_are_written_for_the_registry_when_asked(checkout: Checkout) -> None:
    import open_clip

    checkout.config["tracking"] = {"models": True}
    assert checkout.plan() == {"register_expert": 3, "register_merge": 2, "sync": 1}
    folder = checkout / "results/registered/taskgrid-vit-4-s0/standard/0/merge/task_arithmetic"
    checkout.run(str((folder / "open_clip_config.json").relative_to(checkout.folder)))
    selected = checkout.table("selected.parquet").set_index(["method", "subset"])
    about = json.loads((folder / "open_clip_config.json").read_text())["taskgrid"]
    assert about["point"] == selected.loc[("task_arithmetic", "a+b+c"), "point"]
    assert open_clip.create_model(f"local-dir:{folder}").visual.image_size == (24, 24)
    records = checkout.json(
        "results/eval/taskgrid-vit-4-s0/standard/0/task_arithmetic/00001/run.json"
    )
    assert about["record"] in {record["point_id"] for record in records["records"]}


def test_figures_and_report_are_made(checkout: Checkout) -> None:
    figures = {path.name for path in (checkout / "results/figures").iterdir()}
    for name in (
        "lambda_curve",
        "subset_size",
        "cosine",
        "conflicts",
        "heatmap",
        "cross_evaluation",
        "training",
    ):
        assert {f"{name}.pdf", f"{name}.png"} <= figures
    report = (checkout / "results/report.html").read_text()
    best = checkout.table("selected.parquet").query("size == 3")["test_accuracy"].max()
    assert f'data-key="{best:.6f}"' in report and "figures/lambda_curve.pdf" in report
    checkout.run("--report", "results/provenance.html")
    provenance = (checkout / "results/provenance.html").read_text()
    for word in ("lambda_curve", "finetune", "report.html"):
        assert word in provenance


def test_the_explorer_holds_every_row_of_a_merge(checkout: Checkout) -> None:
    explored = held((checkout / "results/explorer.html").read_text())
    (run,) = explored["runs"]
    found = sum(
        len(subset["rows"]) for merge in run["merges"] for subset in merge["subsets"].values()
    )
    grid = checkout.table("grid.parquet")
    assert found == (~grid["method"].isin(["zeroshot", "expert"])).sum()
    assert {merge["label"] for merge in run["merges"]} == {"task_arithmetic", "average"}
    assert explored["files"] == ["tiny.yaml"]


def test_conflicts_are_told_before_anything_is_merged(tmp_path: Path) -> None:
    planned = Checkout(tmp_path / "new").plan("conflicts")
    assert planned["conflict"] == planned["conflict_table"] == 1 and planned["figure"] == 2
    assert not {"merge", "eval", "reference"} & planned.keys()


# In every Python of a call: a training that takes its time.
SLOW = """
import sys
if any(word.endswith("scripts/finetune.py") for word in sys.orig_argv):
    import time
    from taskgrid.finetuning.training import Training
    update = Training._update
    def slow(run):
        update(run)
        time.sleep(2)
    Training._update = slow
"""


def test_a_killed_training_resumes_to_the_same_weights(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.config["finetune"]["checkpoint_seconds"] = 0.2
    expert = "results/experts/taskgrid-vit-4-s0/standard/0/a/expert.safetensors"
    scratch = checkout / "results/scratch/finetune/taskgrid-vit-4-s0/standard/0/a"
    whole = (checkout / expert).read_bytes()
    (checkout / expert).unlink()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", checkout.at_every_start(SLOW))
        job = checkout.begin(expert, start_new_session=True)
    with job:
        deadline = time.monotonic() + 120
        while not list(scratch.glob("*.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGKILL)
    assert list(scratch.glob("*.safetensors")), "no checkpoint was written before the kill"
    assert not (checkout / expert).exists()
    checkout.run(expert)
    assert (checkout / expert).read_bytes() == whole
    assert not list(scratch.iterdir())
