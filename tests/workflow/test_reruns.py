"""What runs again after which change: the promise that a grid is kept up to date incrementally.

Each test changes one thing in a finished checkout and counts jobs and evaluated rows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.workflow.conftest import GRID, ROOT, Checkout, moved_in_time

pytestmark = pytest.mark.workflow

SHARED = Path(os.environ.get("TASKGRID_SHARED_DATA", ROOT.parent / "shared" / "data"))
MNIST: dict[str, Any] = {
    "name": "mnist",
    "source": "npz",
    "path": str(SHARED / "mnist" / "mnist.npz"),
    "finetune": {"steps": 60, "batch_size": 64, "warmup_steps": 10, "lr": 1.0e-3},
}
MADE: dict[str, Any] = {"name": "d", "source": "npz", "path": "data/d/d.npz"}
# A real set is a task of a user like any other; where there is none, one that is made.
ADDED = MNIST if SHARED.is_dir() else MADE

NOTHING: Counter[str] = Counter()

# Every figure but the training curves and the cosines is drawn from the tables.
AFTER_TABLES = Counter({"figure": 4, "report": 1, "explorer": 1, "sync": 1})


def revise(checkout: Checkout, module: str) -> None:
    """Change what a module of the library computes, as far as a digest can tell."""
    path = checkout / "src/taskgrid" / module
    path.write_text(path.read_text() + "\n\nREVISION = 2\n")


def values(checkout: Checkout, columns: list[str]) -> pd.DataFrame:
    return checkout.table("grid.parquet")[columns].reset_index(drop=True)


def test_a_second_run_does_nothing_and_says_so(checkout: Checkout) -> None:
    known = checkout / ".snakemake/taskgrid-code.json"
    written = known.stat().st_mtime_ns
    outcome = checkout.run()
    assert outcome.rules == NOTHING
    assert "Nothing to be done" in outcome.text
    # It is written where a text of a module had to be read.
    assert known.stat().st_mtime_ns == written


def branches_switched(checkout: Checkout) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=checkout.folder, check=True)

    (checkout / ".gitignore").write_text("results/\n.snakemake/\ndata/\ntiny.yaml\n")
    git("init", "--quiet", "--initial-branch", "main")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    git("checkout", "--quiet", "-b", "other")
    revise(checkout, "merging/methods/average.py")
    git("commit", "--quiet", "--all", "--message", "two")
    git("checkout", "--quiet", "main")


def touched_in_the_future(checkout: Checkout) -> None:
    for name in ("src", "scripts", "rules", "resources", "data", "Snakefile"):
        moved_in_time(checkout / name, 30)


def cloned_anew(checkout: Checkout) -> None:
    for part in ("src", "scripts", "rules", "resources"):
        moved = checkout / f"{part}-old"
        shutil.move(checkout / part, moved)
        shutil.copytree(moved, checkout / part, copy_function=shutil.copyfile)


def docstrings_and_comments(checkout: Checkout) -> None:
    for name in (
        "merging/methods/task_arithmetic.py",
        "finetuning/loop.py",
        "data/dataset.py",
        "lattice/points.py",
    ):
        path = checkout / "src/taskgrid" / name
        head, body = path.read_text().split('"""\n', 1)
        path.write_text(f'{head} More words."""\n# A remark.\n{body}')
    checkout.edit("scripts/finetune.py", '"""', '"""Words before. ')


def plumbing(checkout: Checkout) -> None:
    for name in ("workflow/command.py", "config/load.py", "remote/hub.py", "machine/devices.py"):
        revise(checkout, name)
    checkout.edit("scripts/eval.py", 'print(f"', 'print(f"done: ')


def an_unused_plugin(checkout: Checkout) -> None:
    revise(checkout, "data/sources/parquet.py")


def a_line_in_the_registry_of_plugins(checkout: Checkout) -> None:
    checkout.edit(
        "src/taskgrid/plugins/registry.py",
        '"average": "taskgrid.merging.methods.average",',
        '"average": "taskgrid.merging.methods.average",\n'
        '            "mean": "taskgrid.merging.methods.average",',
    )


def threads_resources_and_device(checkout: Checkout) -> None:
    checkout.config["device"] = "auto"
    for name in ("finetune", "evaluate"):
        path = checkout / f"rules/{name}.smk"
        path.write_text(
            path.read_text().replace("threads: 1", "threads: 2").replace("6000", "7000")
        )


WITHOUT_EFFECT = (
    branches_switched,
    cloned_anew,
    touched_in_the_future,
    docstrings_and_comments,
    plumbing,
    an_unused_plugin,
    a_line_in_the_registry_of_plugins,
    threads_resources_and_device,
)


def test_changes_without_effect_run_nothing(checkout: Checkout) -> None:
    # All at once: the plan costs seconds, and names the rules and reasons of what it would run.
    for change in WITHOUT_EFFECT:
        change(checkout)
    outcome = checkout.run("-n")
    assert outcome.rules == NOTHING, outcome.text


def test_a_missing_block_is_made_where_the_reference_runs_before_it(checkout: Checkout) -> None:
    # Snakemake does not follow an edge that is ancient, and would forget the target behind it.
    rows = [
        f"results/eval/taskgrid-vit-4-s0/standard/0/average/{block}/rows.parquet"
        for block in ("00000", "00001")
    ]
    checkout.edit("rules/evaluate.smk", " --store results/store", "  --store results/store")
    (checkout / rows[0]).unlink()
    assert checkout.plan(rows[0]) == Counter({"reference": 1, "eval": 1})
    assert checkout.plan(rows[1]) == Counter({"reference": 1})


def test_an_edit_of_a_merger_runs_its_blocks_again_and_no_others(checkout: Checkout) -> None:
    revise(checkout, "merging/methods/average.py")
    assert (
        checkout.plan()
        == Counter({"merge": 2, "eval": 2, "record_block": 2, "grid": 1}) + AFTER_TABLES
    )
    checkout.config["grid"] |= {"methods": ["average"], "block_size": 16}
    outcome = checkout.run(GRID)
    # 7 subsets at 2 lambdas (0.00 is the base, whatever the method), sizes 1, 1, 1, 2, 2, 2, 3 on
    # val, and at most one chosen lambda each on test; rows of task arithmetic stay.
    assert 24 <= outcome.evaluated <= 36


def test_an_edit_of_the_training_loop_trains_again_and_decodes_nothing(checkout: Checkout) -> None:
    revise(checkout, "finetuning/loop.py")
    planned = checkout.plan()
    assert planned["finetune"] == 3
    assert not {"dataset", "split", "base", "head"} & set(planned)


def test_an_edit_of_a_figure_draws_that_figure(checkout: Checkout) -> None:
    revise(checkout, "plots/cosine.py")
    assert checkout.plan() == Counter({"figure": 1, "report": 1, "sync": 1})


def test_another_width_draws_figures_and_runs_nothing_else(checkout: Checkout) -> None:
    checkout.config["figure_width"] = "column"
    planned = checkout.plan()
    assert planned.pop("figure") > AFTER_TABLES["figure"] and planned == Counter(
        {"report": 1, "sync": 1}
    )


def test_an_edit_of_the_registry_runs_the_registry(checkout: Checkout) -> None:
    revise(checkout, "tracking/mlflow_store.py")
    assert checkout.plan() == Counter({"sync": 1})


def test_adding_a_study_that_reads_the_grid_runs_nothing_else(checkout: Checkout) -> None:
    fair = {"name": "shapley", "label": "fair", "options": {"draws": 50}}
    checkout.config["studies"] = ["addition", fair]
    assert checkout.plan() == {"study": 1, "figure": 1, "report": 1, "sync": 1}


def test_two_settings_of_a_task_that_are_swapped_train_that_task(checkout: Checkout) -> None:
    # Snakemake compares unnamed sets of values: steps 4, batches of 16 -> steps 16, batches of 4 is
    # missed unless both stand in one value.
    recipe = checkout.config["finetune"]["recipe"]
    swapped = {"steps": recipe["batch_size"], "batch_size": recipe["steps"]}
    checkout.config["tasks"][1]["finetune"] = swapped
    planned = checkout.plan()
    assert planned["finetune"] == planned["taskvector"] == 1


def test_adding_a_task_trains_one_expert_and_evaluates_subsets_that_hold_it(
    checkout: Checkout,
) -> None:
    known = values(checkout, ["key", "method"])
    before = set(known["key"])
    checkout.config["grid"] |= {"methods": ["task_arithmetic"], "block_size": 16}
    checkout.config["tasks"].append(ADDED)
    outcome = checkout.run(GRID)
    assert outcome.rules["finetune"] == outcome.rules["dataset"] == outcome.rules["taskvector"] == 1
    grid = checkout.table("grid.parquet")
    new = grid[~grid["key"].isin(before)]
    merged = new[~new["method"].isin(["zeroshot", "expert"])]
    assert len(merged)
    assert all(ADDED["name"] in subset.split("+") for subset in merged["subset"])
    assert outcome.evaluated == new["key"].nunique()
    assert set(known[known["method"] != "average"]["key"]) <= set(grid["key"])
    if ADDED is MNIST:
        counts = checkout.json("results/splits/24px/mnist.json")["counts"]
        assert counts == {"train": 2700, "val": 300, "test": 1000, "dropped": 0}
        assert (checkout.table("selected.parquet")["subset"] == "mnist").sum() == 1
        own = new[(new["task"] == "mnist") & (new["split"] == "test")].set_index("method")
        expert = own[own["subset"] == "mnist"].loc["expert", "accuracy"]
        assert expert > own.loc["zeroshot", "accuracy"] + 0.1


def test_removing_and_reordering_tasks_evaluates_nothing(checkout: Checkout) -> None:
    # Lambda 0 is the base whatever the method: several rows share its key.
    before = checkout.table("grid.parquet").groupby("key")["accuracy"].first()
    checkout.config["tasks"] = [checkout.config["tasks"][2], checkout.config["tasks"][0]]
    outcome = checkout.run(GRID)
    assert outcome.evaluated == 0
    assert not {"dataset", "finetune", "taskvector", "head", "base"} & set(outcome.rules)
    grid = checkout.table("grid.parquet")
    assert set(grid["subset"]) == {"", "a", "c", "a+c"}
    assert (before.loc[grid["key"]].to_numpy() == grid["accuracy"].to_numpy()).all()


def test_lost_tables_are_rebuilt_without_any_evaluation(checkout: Checkout) -> None:
    before = (checkout / "results/tables/grid.parquet").read_bytes()
    shutil.rmtree(checkout / "results/tables")
    shutil.rmtree(checkout / "results/eval/taskgrid-vit-4-s0/standard/0/average")
    outcome = checkout.run("tables")
    assert outcome.evaluated == 0
    assert (checkout / "results/tables/grid.parquet").read_bytes() == before


def test_two_runs_give_identical_tables_however_they_are_cut_into_blocks(
    finished: Checkout, checkout: Checkout
) -> None:
    # Another cut into blocks; what is made of images and texts alone stays: its bytes have tests of
    # their own.
    checkout.config["grid"]["block_size"] = 16
    for part in ("experts", "scratch", "vectors", "store", "merge", "eval", "tables"):
        shutil.rmtree(checkout / "results" / part)
    outcome = checkout.run(GRID)
    assert outcome.rules["finetune"] == 3
    assert outcome.evaluated > 0
    for name in ("grid.parquet", "selected.parquet", "summary.csv"):
        one = (finished / f"results/tables/{name}").read_bytes()
        two = (checkout / f"results/tables/{name}").read_bytes()
        assert one == two, name
