"""How all stands, from what lies in a working folder."""

from __future__ import annotations

import json
import os
import platform
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from taskgrid.store.atomic import write_json
from taskgrid.workflow import queue
from taskgrid.workflow.terminal.forecast import Forecast
from taskgrid.workflow.terminal.status import hours, incomplete, points_of, running, status
from tests.unit.workflow.example_experiment import experiment
from tests.unit.workflow.terminal.example_jobs import MACHINE, finetune, job, write_benchmark

FILE = "results/experts/m/standard/0/mnist/expert.json"


def test_done_and_to_do_are_counted(tmp_path: Path) -> None:
    jobs = (finetune("mnist"), job("grid", "grid"))
    write_benchmark(tmp_path, "finetune/m/standard/0/textures", 3600.0)
    write_benchmark(tmp_path, "grid", 7200.0)
    found = Forecast(jobs, {jobs[0].key: 1800.0, jobs[1].key: 9.0}, 20, ("x",), MACHINE)
    # 7 subsets of 3 tasks at 3 lambdas, and at the one of the average.
    assert points_of(experiment()) == 7 * 3 * 2
    assert list(status(experiment(), found, tmp_path)) == [
        "experts  2 of 3",
        "points   22 of 42",
        "to do    1 new expert and 20 new points in 2 jobs, about 30 min on 2 cores, because x",
        "running  nothing",
        "time     1.00 hours without a GPU so far, about 0.50 to go",
    ]


def test_hours_are_those_of_gpus_where_experts_were_trained_on_one(tmp_path: Path) -> None:
    folder = tmp_path / "results/experts/m/standard/0/mnist"
    folder.mkdir(parents=True)
    write_json(folder / "timing.json", {"device": "cuda:0"})
    nothing = Forecast((), {}, 0, (), MACHINE)
    assert hours(nothing, tmp_path) == "0.00 GPU hours so far, about 0.00 to go"


def mark(folder: Path, file: str, cut: int = 255) -> None:
    """Mark a file as one that is being made, as Snakemake does."""
    coded = urlsafe_b64encode(file.encode()).decode()
    *first, last = [coded[start : start + cut] for start in range(0, len(coded), cut)]
    path = folder.joinpath(*(f"@{part}" for part in first), last)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_files_that_are_being_made_are_known_by_their_marks(tmp_path: Path) -> None:
    long = "results/" + "x" * 300
    mark(tmp_path, FILE)
    mark(tmp_path, long, cut=100)
    (tmp_path / "migration_underway").touch()
    assert sorted(map(str, incomplete(tmp_path))) == sorted([FILE, long])
    assert incomplete(tmp_path / "none") == []


def test_a_living_call_is_told_with_what_it_makes_and_a_dead_one_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "jobs_of", lambda folder: [])
    mark(tmp_path / ".snakemake/incomplete", FILE)
    assert list(running(tmp_path)) == []
    note = tmp_path / ".snakemake/locks/x.call"
    note.parent.mkdir(parents=True)
    # Of another host it is not known to be dead.
    note.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "12:00"}))
    assert list(running(tmp_path)) == [
        "process 1 on elsewhere, since 12:00",
        "results/experts/m/standard/0/mnist",
    ]
    mine = {"pid": os.getpid(), "host": platform.node(), "since": "12:00"}
    note.write_text(json.dumps(mine))
    assert list(running(tmp_path)) == []
