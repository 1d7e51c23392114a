"""Faults around a run: what it says, and that nothing is computed twice, from stale files, or not at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.unit.own_mounts import in_own_mounts
from tests.workflow.conftest import DAY, GRID, Checkout, moved_in_time

pytestmark = pytest.mark.workflow

BLOCK = "results/eval/taskgrid-vit-4-s0/standard/0/average/00000/rows.parquet"

# In every Python of a call: the first evaluation finds no memory on its device.
SHORT_OF_MEMORY = """
import sys
from pathlib import Path
flag = Path(__file__).with_name("failed")
if any(word.endswith("scripts/eval.py") for word in sys.orig_argv) and not flag.exists():
    flag.touch()
    import torch
    from taskgrid.evaluation.engine import engine
    def short(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    engine.Engine.__init__ = short
"""


def test_a_job_without_memory_says_what_to_set_and_a_retry_takes_it_further(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (checkout / BLOCK).read_bytes()
    shutil.rmtree(checkout / "results/store")
    monkeypatch.setenv("PYTHONPATH", checkout.at_every_start(SHORT_OF_MEMORY))
    outcome = checkout.run(BLOCK, "--forcerun", "eval", "--allowed-rules", "eval", "--retries", "1")
    (said,) = re.findall(r"^error: .*$", outcome.text, re.MULTILINE)
    assert said.startswith("error: the device's memory ran out (CUDA out of memory. Tried")
    assert "set evaluation.batch_size to fewer images" in said
    assert (checkout / "stub/failed").exists() and "Traceback" not in outcome.text
    assert (checkout / BLOCK).read_bytes() == rows


def test_a_second_call_in_a_folder_is_refused_in_a_sentence(checkout: Checkout) -> None:
    (checkout / "results/figures/heatmap.png").unlink()
    with checkout.begin("figures") as first:
        deadline = time.monotonic() + 300
        # The last of its locks, with what it says.
        locks = checkout / ".snakemake/locks"
        while not any(lock.stat().st_size for lock in locks.glob("*.output.lock")):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        # A living call that stands still, so that the second one comes in time.
        first.send_signal(signal.SIGSTOP)
        second = checkout.snakemake("figures")
        first.send_signal(signal.SIGCONT)
        text, _ = first.communicate()
    assert second.code != 0 and "Traceback" not in second.text
    assert f"Snakemake runs in this folder already: process {first.pid} on " in second.text
    assert first.returncode == 0, text
    assert (checkout / "results/figures/heatmap.png").exists()


def test_inputs_that_nobody_may_write_are_only_read(checkout: Checkout, tmp_path: Path) -> None:
    given = tmp_path / "given"
    shutil.copytree(checkout / "data/a", given / "a")
    shutil.copy(
        checkout / "resources/models/taskgrid-vit-4-s0.safetensors", given / "base.safetensors"
    )
    config = {
        **checkout.config,
        "tasks": [{"name": "x", "source": "npz", "path": str(given / "a/a.npz")}],
        "models": [
            {
                "name": "mine",
                "architecture": "taskgrid-vit-4",
                "pretrained": str(given / "base.safetensors"),
            }
        ],
    }
    (checkout / "mine.yaml").write_text(yaml.safe_dump(config))
    made = ["results/models/mine/base.json", "results/data/24px/x/dataset.json"]
    command = in_own_mounts(
        f"mount --bind {given} {given} && mount -o remount,bind,ro {given} && ! touch {given}/x",
        [sys.executable, "-m", "snakemake", *made, "--configfile", "mine.yaml", "--cores", "2"],
    )
    done = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((checkout / path).exists() for path in made)


def test_a_lambda_more_evaluates_its_points_alone_also_after_a_clock_that_was_ahead(
    checkout: Checkout,
) -> None:
    before = checkout.table("grid.parquet")
    moved_in_time(checkout / "results", 30)
    assert checkout.plan() == Counter()
    # All that is written from here on is older than what it is made of.
    lambdas = [0, 0.25, 0.5, 1]
    checkout.config["grid"] |= {"methods": ["average"], "lambdas": lambdas, "block_size": 16}
    targets = (GRID, "results/figures/heatmap.png")
    outcome = checkout.run(*targets)
    assert "files under results are from the future" in outcome.text
    assert not {"dataset", "finetune", "taskvector", "head"} & set(outcome.rules)
    assert checkout.plan(*targets) == Counter()
    grid = checkout.table("grid.parquet")
    new = grid[~grid["key"].isin(before["key"])]
    assert outcome.evaluated == new["key"].nunique()
    # Test is read for chosen points alone; where the choice moved, it moved to the new lambda.
    assert set(new["point"]) == {"0.25"}
    assert len(new[new["split"] == "val"]) == 12


def test_data_that_changed_while_the_clock_was_behind_are_seen(checkout: Checkout) -> None:
    old = (checkout / "data/a/a.npz").stat()
    shutil.copyfile(checkout / "data/d/d.npz", checkout / "data/a/a.npz")
    os.utime(checkout / "data/a/a.npz", ns=(old.st_atime_ns - DAY, old.st_mtime_ns - DAY))
    planned = checkout.plan()
    assert planned["dataset"] == planned["finetune"] == 1
