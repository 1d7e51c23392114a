"""Published data and ready-made experts through the whole flow, offline, on stand-ins of all layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from taskgrid.models.hub.conversion import to_transformers
from tests.unit.example_hub import as_json, as_safetensors, put
from tests.unit.example_published import hub_standin, original
from tests.workflow.conftest import GRID, ROOT, Checkout

HUB_COUNTS = {"train": 40, "test": 16}
TINY_CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_act": "gelu",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "patch_size": 6,
    "image_size": 24,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine with a data set in the hub's cache, one in its original layout, and experts."""
    folder = tmp_path_factory.mktemp("place")
    cache = folder / "hub"
    hub_standin(cache, "mnist", HUB_COUNTS)
    original(folder / "data", "gtsrb")
    whole = load_file(ROOT / "resources" / "models" / "taskgrid-vit-4-s0.safetensors")
    tower = {k.removeprefix("visual."): v for k, v in whole.items() if k.startswith("visual.")}
    for seed, task in enumerate(("mnist", "GTSRB")):
        generator = torch.Generator().manual_seed(seed)
        expert = {
            key: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator)
            for key, tensor in tower.items()
        }
        theirs = to_transformers(expert)
        theirs.pop("visual_projection.weight")
        files = {"model.safetensors": as_safetensors(theirs), "config.json": as_json(TINY_CONFIG)}
        put(cache, f"somebody/tiny_{task}", files)
    return folder


@pytest.fixture
def published(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkout = Checkout(tmp_path / "checkout")
    by_hand = {"layout": "original", "counts": False}
    checkout.config["tasks"] = [
        {"name": "mnist", "options": {"counts": HUB_COUNTS}, "limit": 30},
        {"name": "gtsrb", "path": str(place / "data"), "options": by_hand},
    ]
    checkout.config["finetune"]["modes"] = []
    checkout.config["experts"] = [
        {
            "name": "hub",
            "format": "transformers",
            "source": "somebody/tiny_{task}",
            "names": {"gtsrb": "GTSRB"},
            "check": {"tolerance": 0.1},
        }
    ]
    checkout.config["grid"] |= {"subsets": {"sizes": [1, 2]}, "methods": ["task_arithmetic"]}
    return checkout


def test_from_download_to_table_without_a_network(published: Checkout) -> None:
    published.run(GRID)
    grid = published.table("grid.parquet")
    assert set(grid["mode"].dropna()) == {"hub"}
    tested = grid[(grid["split"] == "test") & (grid["method"] == "zeroshot")].set_index("task")["n"]
    assert tested.to_dict() == {"mnist": 16, "gtsrb": 43}
    merged = grid[(grid["size"] == 2) & (grid["split"] == "val")]
    assert len(merged) == 2 * 3
    manifest = published.json("results/downloads/mnist.json")
    assert manifest["commit"]
    assert manifest["files"][0]["sha256"]
    expert = published.json("results/experts/taskgrid-vit-4-s0/hub/0/gtsrb/expert.json")
    assert expert["repository"] == "somebody/tiny_GTSRB"
    assert expert["projection"] == "base"
    verified = published.json("results/experts/taskgrid-vit-4-s0/hub/0/gtsrb/verified.json")
    assert verified["n"] == 43
    assert published.plan(GRID) == {}
    np.testing.assert_array_less(0, grid["n"])

    # An expert that fails its own task is not merged.
    published.config["experts"][0]["check"] = {"expected": {"mnist": 0.999}, "tolerance": 0}
    vector = "results/vectors/taskgrid-vit-4-s0/hub/0/mnist.safetensors"
    (published / vector).unlink()
    outcome = published.snakemake(vector)
    assert outcome.code != 0
    assert "99.90" in outcome.text
    assert "Traceback" not in outcome.text
    assert not (published / vector).exists()


def test_wrong_counts_are_one_sentence(published: Checkout) -> None:
    published.config["tasks"] = ["mnist"]
    published.config["experts"] = []
    published.config["finetune"]["modes"] = ["standard"]
    published.config["grid"]["subsets"] = "all"
    outcome = published.snakemake("results/data/24px/mnist/dataset.json")
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    for word in ("mnist", "60000", "40"):
        assert word in outcome.text


def test_the_doctor_finds_what_lies_here(published: Checkout) -> None:
    outcome = published.run("doctor")
    lines = [line.split() for line in outcome.text.splitlines() if " of " in line[:20]]
    states = {" ".join(line[1:4]): line[0] for line in lines}
    assert states["data of mnist"] == "ready"
    assert states["data of gtsrb"] == "ready"
    assert states["expert of gtsrb"] == "ready"
