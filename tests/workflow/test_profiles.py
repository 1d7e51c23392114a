"""The profiles parse and plan; what a GPU job asks of SLURM is in its resources."""

from __future__ import annotations

import re

import pytest

from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.workflow


def test_on_slurm_every_heavy_job_asks_for_one_gpu(tmp_path_factory: pytest.TempPathFactory) -> None:
    checkout = Checkout(tmp_path_factory.mktemp("slurm") / "checkout")
    outcome = checkout.run("--profile", "profiles/slurm", "-n", "--verbose")
    jobs = re.split(r"\n(?=rule |Job )", outcome.text)
    asking = {
        match[1]
        for job in jobs
        if re.search(r"resources:.*\bgpu=1\b", job)
        for match in [re.search(r"rule (\w+):", job)]
        if match
    }
    assert {"finetune", "eval", "reference"} <= asking, outcome.text[-3000:]
    assert not {"dataset", "split", "taskvector", "grid", "figure"} & asking


def test_without_a_gpu_no_job_waits_for_one(finished: Checkout) -> None:
    outcome = finished.run("--forceall", "-n", "--resources", "gpu=0")
    assert outcome.rules["eval"] == 4
    assert not re.search(r"gpu=[1-9]", outcome.text)
