"""A SLURM cluster for the tests of this folder, and a grid that is small enough to run on it twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.slurm import cluster as clusters
from tests.slurm.cluster import Cluster
from tests.workflow.conftest import Checkout

# Tasks that are made, so that all but what computes on a device runs on the submitting node.
CONFIG: dict[str, Any] = {
    "tasks": ["handwritten", "textures", "pictograms"],
    "finetune": {"checkpoint_seconds": 1, "recipe": {"steps": 200, "warmup_steps": 10}},
    "grid": {"methods": ["task_arithmetic"], "lambdas": [0, 0.5, 1]},
    "studies": ["addition"],
    "figures": ["heatmap"],
}
JOBS = 5  # three trainings, the reference and the grid


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    try:
        clusters.unpack()
    except clusters.NoClusterError as error:
        pytest.skip(f"there can be no SLURM cluster here: {error}")
    with clusters.running() as up, pytest.MonkeyPatch.context() as patch:
        for key, value in up.environment.items():
            patch.setenv(key, value)
        # What a machine has for GPUs is not the cluster's.
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield up


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the grid ran on this machine."""
    checkout = Checkout(tmp_path_factory.mktemp("local") / "checkout")
    checkout.config = CONFIG
    checkout.run("--cores", str(os.cpu_count()))
    return checkout


@pytest.fixture(scope="session")
def remote(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose grid the tests run on the cluster."""
    checkout = Checkout(tmp_path_factory.mktemp("remote") / "checkout")
    checkout.config = CONFIG
    return checkout
