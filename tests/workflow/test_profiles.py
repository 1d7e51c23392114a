"""The profiles parse and plan, and as many GPU jobs may run at once as a person expects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, Checkout

pytestmark = pytest.mark.workflow


def test_every_rule_that_computes_on_a_device_asks_for_one_gpu() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    parts = re.split(r"^rule (\w+):$", text, flags=re.MULTILINE)
    rules = dict(zip(parts[1::2], parts[2::2], strict=True))
    computing = {name for name, body in rules.items() if "*ON_DEVICE" in body}
    assert {"finetune", "reference", "eval"} < computing
    # One that computes there for some plug-ins only asks for it with those.
    asking = {name for name, body in rules.items() if re.search(r"gpu=(lambda w: )?GPU", body)}
    assert computing == asking


def test_the_slurm_profile_plans(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    assert checkout.run("--profile", "profiles/slurm", "-n").rules["finetune"] == 3


@dataclass(frozen=True)
class Call:
    """A Snakemake call, the GPUs that the machine shows, and the GPU jobs it may run at once."""

    arguments: str
    visible: str
    provided: int | None
    elsewhere: bool = False


CALLS = (
    Call("", visible="", provided=None),
    Call("", visible="0,1,2", provided=3),
    Call("--workflow-profile none --cores 1", visible="0,1", provided=2),
    Call("-s {root}/Snakefile", visible="0,1", provided=2, elsewhere=True),
    # Some login nodes have a GPU; it says nothing of the cluster.
    Call("--profile profiles/slurm", visible="0", provided=100),
    Call("--profile profiles/slurm --resources gpu=4", visible="0", provided=4),
    Call("--workflow-profile profiles/slurm", visible="0", provided=100),
    Call("--profile {root}/profiles/slurm --workflow-profile none", visible="0", provided=100),
    Call(
        "--profile {root}/profiles/slurm -s {root}/Snakefile",
        visible="0",
        provided=100,
        elsewhere=True,
    ),
    # A person's own profile of a cluster, which limits the jobs alone.
    Call("--executor slurm --jobs 40", visible="0", provided=None),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Checkout(tmp_path_factory.mktemp("profiles") / "checkout").folder


@pytest.mark.parametrize(
    "call", CALLS, ids=lambda call: f"{call.arguments or 'bare'}-{call.visible}"
)
def test_gpus_provided(call: Call, root: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((root / "config.yaml").read_text())
    arguments = call.arguments.format(root=root).split()
    # `--touch` provides as a run does, and runs nothing.
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "doctor", "--touch", *arguments],
        cwd=tmp_path if call.elsewhere else root,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": call.visible, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    provided = re.search(
        r'^Provided resources:.*Resource\("gpu", (\d+)\)', done.stdout, re.MULTILINE
    )
    assert (provided and int(provided[1])) == call.provided, done.stdout
