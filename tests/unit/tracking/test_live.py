"""Curves that a training writes as it goes: completed or removed by its record, never doubled."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from taskgrid.tracking.building.experts import expert_record
from taskgrid.tracking.records import RunRecord
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import Target
from tests.unit.example_registry import current, cut_off_after, runs

from mlflow.entities import Run, ViewType  # isort: skip
from mlflow.tracking import MlflowClient  # isort: skip

from taskgrid.tracking import mlflow_live  # isort: skip
from taskgrid.tracking.mlflow_live import LiveRun  # isort: skip

SETTINGS = {"model": "m", "mode": "standard", "seed": 0, "task": "digits", "recipe": {"lr": 0.1}}
ROWS = [
    *((step, "train/loss", 1 / step) for step in range(1, 61)),
    *((step, "train/lr", 0.1 / step) for step in range(1, 61)),
    *((step, "val/accuracy", step / 100) for step in (0, 30, 60)),
]
NAME = "taskgrid-experts"


def the_record(rows: Sequence[tuple[int, str, float]] = ROWS) -> RunRecord:
    return expert_record({"split": "s" * 32}, SETTINGS, rows, 5.0)


def at(*steps: int) -> list[list[tuple[int, str, float]]]:
    """Return what a training says at some steps: its newest rows."""
    return [
        [
            *((s, key, value) for s, key, value in ROWS if s == step and key != "val/accuracy"),
            max(row for row in ROWS if row[1] == "val/accuracy" and row[0] <= step),
        ]
        for step in steps
    ]


def says_what_the_record_says(target: Target, run: Run, record: RunRecord) -> bool:
    client = MlflowClient(target.uri)
    found = [
        (key, each.step, each.value)
        for key in run.data.metrics
        for each in client.get_metric_history(run.info.run_id, key)
    ]
    return sorted(found) == sorted((m.key, m.step, m.value) for m in record.metrics)


def test_the_record_completes_the_run_of_its_training(target: Target) -> None:
    live = LiveRun(target, SETTINGS)
    for points in at(20, 40):
        live.log(points)
    (seen,) = runs(target, NAME)
    assert seen.info.status == "RUNNING" and seen.data.metrics["curve/train/loss"] == 1 / 40
    assert current(target, NAME) == {}
    # It was killed; its second attempt repeats some and goes on.
    live = LiveRun(target, SETTINGS)
    for points in at(20, 40, 60):
        live.log(points)
    live.end("FINISHED")
    assert current(target, NAME) == {}

    report = sync_records([the_record()], target, whole_grid=True)
    assert (report.created, report.repaired, report.status) == (1, 0, "level")
    (run,) = runs(target, NAME, ViewType.ALL)
    assert run.info.run_id == seen.info.run_id and run.data.params["recipe.lr"] == "0.1"
    assert run.info.status == "FINISHED" and run.data.tags["superseded"] == "false"
    assert run.info.end_time - run.info.start_time == 5000
    assert {each.dataset.name for each in run.inputs.dataset_inputs} == {"digits"}
    assert says_what_the_record_says(target, run, the_record())
    assert sync_records([the_record()], target, whole_grid=True).unchanged == 1

    # The same training once more, and another one of the task.
    LiveRun(target, SETTINGS).log(at(20)[0])
    again = sync_records([the_record()], target)
    assert (again.unchanged, again.repaired, len(runs(target, NAME))) == (1, 1, 1)
    LiveRun(target, SETTINGS).log(at(20)[0])
    other = the_record([*ROWS, (61, "train/loss", 0.5)])
    changed = sync_records([other], target)
    assert (changed.created, changed.superseded, changed.repaired) == (1, 1, 0)
    ((found,),) = current(target, NAME).values()
    assert found.info.run_id != run.info.run_id and len(runs(target, NAME)) == 2
    assert says_what_the_record_says(target, found, other)


@pytest.mark.parametrize("wrong", [(20, "train/loss", 9.0), (70, "train/loss", 0.1)])
def test_a_run_that_says_what_its_record_does_not_is_replaced(
    target: Target, wrong: tuple[int, str, float]
) -> None:
    LiveRun(target, SETTINGS).log([wrong])
    LiveRun(target, {**SETTINGS, "recipe": {"lr": 0.2}}).log(at(20)[0])  # of an older configuration
    assert len(runs(target, NAME)) == 2
    report = sync_records([the_record()], target)
    assert (report.created, report.repaired) == (1, 1)
    (run,) = runs(target, NAME)
    assert says_what_the_record_says(target, run, the_record())


def test_a_completion_that_was_cut_off_is_completed(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    LiveRun(target, SETTINGS).log(at(20)[0])
    for name in ("log_batch", "log_inputs", "set_tag", "set_terminated"):
        with monkeypatch.context() as patch:
            cut_off_after(patch, name)
            assert sync_records([the_record()], target).status == "delayed"
    assert sync_records([the_record()], target).status == "level"
    (run,) = runs(target, NAME, ViewType.ALL)
    assert says_what_the_record_says(target, run, the_record())


def test_a_server_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = f'{{"uri": "http://127.0.0.1:{port}", "experiment": "x", "results": "{tmp_path}"'
    monkeypatch.setattr(sys, "argv", ["live", given + ', "training": {}}'])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow_live.main()
    said = capsys.readouterr().err
    assert said.startswith("no live curves in MLflow (the MLflow server http://127.0.0.1:")
    assert said.count("\n") == 1
