"""What jobs run on, as it is said to a logger."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from taskgrid.workflow.terminal.telling import EXTRA, machine_of, of_jobs
from tests.unit.workflow.example_experiment import experiment
from tests.unit.workflow.terminal.example_jobs import (
    MACHINE,
    evaluation,
    graph_of,
    plan,
    updated,
    write_plan,
)


@pytest.mark.parametrize(
    ("cores", "nodes", "gpus", "place", "at_once"),
    [
        (1, None, 0, "1 core", (1, 1)),
        (16, None, 4, "16 cores and 4 GPUs", (4, 16)),
        (2, None, 4, "2 cores and 4 GPUs", (2, 2)),
        (2, 100, 4, "a cluster, 100 jobs at once", (100, 100)),
        (2, sys.maxsize, 0, "a cluster", (sys.maxsize, sys.maxsize)),
    ],
)
def test_gpus_limit_what_asks_for_one(
    cores: int, nodes: int | None, gpus: int, place: str, at_once: tuple[int, int]
) -> None:
    found = machine_of(cores, nodes, gpus)
    assert found.place == place
    assert (found.at_once("finetune"), found.at_once("figure")) == at_once


def test_what_was_before_is_read_before_jobs_take_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(tmp_path, experiment())
    (tmp_path / "results/models/m").mkdir(parents=True)
    jobs = [plan(reason="Params have changed"), evaluation(reason=updated("results/merge/x.json"))]
    known = experiment(grid={"lambdas": [0, 0.3, 0.35, 1]})
    forecast = of_jobs(known, MACHINE, graph_of(*jobs))[EXTRA]
    shutil.rmtree(tmp_path / "results")
    assert "3 new points in 2 jobs" in str(forecast)
    assert str(forecast).endswith("because lambda 0.35 was added")
