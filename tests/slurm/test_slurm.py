"""A grid on a SLURM cluster: as on one machine, and whatever is killed, cancelled or lost meanwhile."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from tests.slurm.cluster import Cluster, kill, wait_for
from tests.slurm.conftest import JOBS
from tests.workflow.conftest import TIMED, Checkout

pytestmark = pytest.mark.slurm

PROFILE = ("--profile", "profiles/slurm", "--cores", "all")
EXPERTS = "results/experts"


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Return what is in the files of a folder."""
    found = [path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()]
    assert found
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def intervals(lines: Iterable[list[str]]) -> dict[str, tuple[str, int, int]]:
    """Return of each step of a job on a GPU which one it was, and between which lines it ran."""
    found: dict[str, tuple[str, int, int]] = {}
    for number, (event, step, *device) in enumerate(lines):
        if event == "begin" and not step.endswith("."):
            found[step] = (device[0], number, 1 << 30)
        elif step in found:
            found[step] = (*found[step][:2], number)
    return found


def together(steps: Mapping[str, tuple[str, int, int]]) -> int:
    """Return how many steps ran at once, at most."""
    return max(
        sum(begin <= moment < end for _, begin, end in steps.values())
        for _, moment, _ in steps.values()
    )


@contextmanager
def begun(checkout: Checkout) -> Iterator[subprocess.Popen[str]]:
    """Begin to train on the cluster; nothing of the call is left behind but its jobs."""
    with checkout.begin("experts", *PROFILE) as call:
        try:
            yield call
        finally:
            call.kill()


def checkpoints(checkout: Checkout) -> list[Path]:
    return [*(checkout / "results/scratch").rglob("checkpoint.safetensors")]


def queued(cluster: Cluster) -> dict[str, str]:
    """Return the nodes of the jobs that run, by their numbers."""
    listing = cluster.call("squeue", "--noheader", "--states=R", "--format=%i %N")
    return dict(line.split() for line in listing.splitlines())


def test_a_grid_is_what_it_is_on_one_machine(
    cluster: Cluster, local: Checkout, remote: Checkout
) -> None:
    outcome = remote.run(*PROFILE)
    assert 'Resource("gpu", 100)' in outcome.text
    assert outcome.text.count("has been submitted with SLURM jobid") == JOBS

    steps = intervals(cluster.steps())
    assert len(steps) == JOBS
    for device, begin, end in steps.values():
        assert re.fullmatch(r"n[12]:[01]", device)
        assert [begin] == [
            other
            for one, other, until in steps.values()
            if one == device and other < end and begin < until
        ]
    assert together(steps) == 3

    tables, same = (files(place / "results/tables", "*") for place in (remote, local))
    for found in (tables, same):
        del found[TIMED], found[f".{TIMED}.seal"]
    assert tables == same
    costs = (place.table(TIMED).drop(columns="prepare_seconds") for place in (remote, local))
    pd.testing.assert_frame_equal(*costs)
    weights = files(local / EXPERTS, "*.safetensors", "expert.json")
    assert len(weights) == 6
    assert files(remote / EXPERTS, "*.safetensors", "expert.json") == weights


def test_what_a_killed_call_left_is_never_computed_twice(
    cluster: Cluster, remote: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trainings without an end, of which Snakemake is gone.
    endless = {"finetune": {"checkpoint_seconds": 1, "recipe": {"steps": 1_000_000}}}
    monkeypatch.setattr(remote, "config", {**remote.config, **endless})
    with begun(remote):
        wait_for(lambda: len(checkpoints(remote)) == 3, 900, "three checkpoints")
    left = queued(cluster)
    assert len(left) == 3

    for arguments in (PROFILE, ("--cores", "1")):
        outcome = remote.snakemake("experts", *arguments)
        assert outcome.code == 1
        assert "SLURM still has jobs of a call of Snakemake that is gone" in outcome.text
        assert queued(cluster) == left
    command = re.search(r"`(scancel [\d ]+)`", outcome.text)
    assert command is not None and set(command[1].split()[1:]) == set(left)
    cluster.call(*command[1].split())
    wait_for(lambda: not cluster.call("squeue", "--noheader"), 60, "the queue is empty")
    assert len(checkpoints(remote)) == 3


def test_a_training_survives_whatever_ends_its_job(
    cluster: Cluster, local: Checkout, remote: Checkout
) -> None:
    shutil.rmtree(remote / EXPERTS, ignore_errors=True)
    shutil.rmtree(remote / "results/scratch", ignore_errors=True)
    with begun(remote) as call:
        wait_for(lambda: len(checkpoints(remote)) == 3, 900, "three checkpoints")
        jobs = queued(cluster)
        lost = next(job for job, node in jobs.items() if node == "n2")
        cancelled, broken = (job for job in jobs if job != lost)

        assert "disabled" in cluster.fails("scontrol", "requeue", cancelled)
        cluster.call("scancel", cancelled)
        kill(cluster.processes(SLURM_JOB_ID=broken, SLURM_STEP_ID="0"))
        cluster.call("scontrol", "update", "nodename=n2", "state=down", "reason=test")
        kill(cluster.processes(SLURMD_NODENAME="n2"))
        text, _ = call.communicate(timeout=900)
    assert call.returncode == 0, text
    for job in (cancelled, broken, lost):
        assert f"SLURM-job '{job}' failed" in text
    weights = files(local / EXPERTS, "*.safetensors")
    assert files(remote / EXPERTS, "*.safetensors") == weights
