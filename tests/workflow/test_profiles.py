"""The profiles parse and plan; what GPU rules ask for, they ask for on SLURM too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import ROOT, Checkout

pytestmark = pytest.mark.workflow


def test_on_slurm_every_gpu_rule_asks_for_one_gpu() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    rules = re.split(r"^rule (\w+):$", text, flags=re.MULTILINE)
    asking = {
        name for name, body in zip(rules[1::2], rules[2::2], strict=True) if "gpu=GPU" in body
    }
    profile = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text())
    assert {"finetune", "reference", "eval"} < asking
    assert profile["set-resources"] == {name: {"gpu": 1} for name in asking}
    # The local profile is read as well, and its limit is one GPU.
    assert profile["resources"]["gpu"] > 1


def test_the_slurm_profile_plans(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    assert checkout.run("--profile", "profiles/slurm", "-n").rules["finetune"] == 3
