"""Broken inputs: one clear sentence each, an exit code, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workflow.conftest import Checkout, Outcome

pytestmark = pytest.mark.workflow

DATA = "results/data/24px/x"
DATASET = f"{DATA}/dataset.json"
SPLIT = "results/splits/24px/x.json"


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A checkout without results."""
    return Checkout(tmp_path / "checkout")


def refused(outcome: Outcome, *words: str) -> None:
    """The call failed, and one line of its output holds all the words; no traceback stands there."""
    assert outcome.code != 0, outcome.text
    assert "Traceback" not in outcome.text, outcome.text
    lines = [line for line in outcome.text.splitlines() if all(word in line for word in words)]
    assert lines, f"no line has {words}:\n{outcome.text}"


def only_task(checkout: Checkout, **task: object) -> None:
    checkout.config["tasks"] = [{"name": "x", "source": "folder", "path": "data/x", **task}]


def folder_task(checkout: Checkout) -> Path:
    """Ten images for each of two classes, in train and in test."""
    generator = np.random.default_rng(0)
    root = checkout / "data/x"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(10):
                pixels = generator.integers(0, 255, (30, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    only_task(checkout)
    return root


def test_unknown_config_key(fresh: Checkout) -> None:
    fresh.config["grid"]["lamdas"] = [0.1]
    refused(fresh.snakemake(), "unknown key 'grid.lamdas'", "did you mean 'lambdas'")
    assert not any((fresh / "results").rglob("*"))


def test_missing_data(fresh: Checkout) -> None:
    only_task(fresh)
    refused(fresh.snakemake(), "task 'x'", "data/x does not exist")


def test_empty_class_folder(fresh: Checkout) -> None:
    shutil.rmtree(folder_task(fresh) / "train/dog")
    (fresh / "data/x/train/dog").mkdir()
    refused(fresh.snakemake(DATASET), "error:", "task 'x'", "dog")
    assert not (fresh / DATA).exists() or not any((fresh / DATA).iterdir())


def test_truncated_image(fresh: Checkout) -> None:
    path = folder_task(fresh) / "train/dog/3.png"
    path.write_bytes(path.read_bytes()[:600])
    refused(fresh.snakemake(DATASET), "error:", "task 'x'", "train/dog/3.png")
    assert not (fresh / DATA).exists() or not any((fresh / DATA).iterdir())


def test_validation_overlaps_test(fresh: Checkout) -> None:
    root = folder_task(fresh)
    shutil.copytree(root / "test", root / "val")
    refused(fresh.snakemake(SPLIT), "error:", "task 'x'", "val", "test", "allow_overlap")
    assert not (fresh / SPLIT).exists()
    only_task(fresh, allow_overlap=True)
    fresh.run(SPLIT)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_corrupt_safetensors(checkout: Checkout, damage: str) -> None:
    folder = checkout / "results/experts/taskgrid-vit-4-s0/standard/0/a"
    raw = bytearray((folder / "expert.safetensors").read_bytes())
    raw = raw[:-100] if damage == "truncated" else raw[:-1] + bytes([raw[-1] ^ 1])
    (folder / "expert.safetensors").write_bytes(raw)
    vector = "results/vectors/taskgrid-vit-4-s0/standard/0/a.safetensors"
    (checkout / vector).unlink()
    refused(checkout.snakemake(vector), "error:", "a/expert.safetensors", "damaged", "delete it")
    assert not (checkout / vector).exists()


@pytest.mark.parametrize("obstacle", ["file", "read-only"])
def test_unwritable_results_folder(fresh: Checkout, obstacle: str) -> None:
    if obstacle == "file":
        (fresh / "results").write_text("in the way")
    else:
        # Nobody, not even root, can make files there.
        (fresh / "results").symlink_to("/proc/self/fdinfo")
    refused(fresh.snakemake(), "cannot write results")


def test_a_point_to_export_that_does_not_exist(fresh: Checkout) -> None:
    path = "results/export/taskgrid-vit-4-s0/standard/0/average/a+typo/0.30.safetensors"
    outcome = fresh.snakemake("-n", path)
    # Snakemake adds where the rule stands.
    assert outcome.code != 0 and "there is no task 'typo'; there are: a, b, c" in outcome.text
    assert "MissingRuleException" not in outcome.text


def test_a_dead_tracking_server_delays_the_registry_and_fails_nothing(checkout: Checkout) -> None:
    checkout.config["tracking"] = {"uri": "http://127.0.0.1:9"}
    outcome = checkout.run()
    assert "nothing is lost" in outcome.text
    assert checkout.plan() == {"sync": 1}
    assert (checkout / "results/tables/summary.csv").exists()
    del checkout.config["tracking"]
    checkout.run("registry")
    assert json.loads((checkout / "results/registry/sync.json").read_text())["status"] == "level"
