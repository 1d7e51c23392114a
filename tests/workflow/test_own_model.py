"""A model whose architecture is a file of the user's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.workflow

BASE = "results/models/own/base.json"


def test_an_architecture_by_path_is_followed(tmp_path: Path) -> None:
    fresh = Checkout(tmp_path / "checkout")
    shipped, mine = fresh / "resources/models", fresh / "my models"
    mine.mkdir()
    shutil.copy(shipped / "taskgrid-vit-4.json", mine / "own.json")
    shutil.copy(shipped / "taskgrid-vit-4-s0.safetensors", mine / "weights.safetensors")
    fresh.config["models"] = [
        {
            "name": "own",
            "architecture": "my models/own.json",
            "pretrained": "my models/weights.safetensors",
        }
    ]
    fresh.run(BASE)
    card = fresh.json(BASE)
    assert (card["architecture"], card["image_size"]) == ("my models/own.json", 24)
    assert not fresh.plan(BASE)
    config = fresh.json("my models/own.json")
    config["text_cfg"]["heads"] = 2
    (mine / "own.json").write_text(json.dumps(config))
    assert fresh.plan(BASE) == {"base": 1}
    fresh.config["models"][0]["pretrained"] = "openai"
    outcome = fresh.snakemake("-n", BASE)
    assert outcome.code != 0 and "of your own (my models/own.json) has no tags" in outcome.text
