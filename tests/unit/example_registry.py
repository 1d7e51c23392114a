"""Run records, and what a registry says of their runs."""

from __future__ import annotations

import os

import pytest

from taskgrid.tracking.records import Metric, RunRecord
from taskgrid.tracking.target import Target

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient


def record(
    name: str, value: float = 1.0, kind: str = "subset", parent: str | None = None, **more: object
) -> RunRecord:
    fields = {
        "point_id": f"{kind}/{name}",
        "kind": kind,
        "name": name,
        "parent": parent,
        "params": {"size": "2", "method": "ties"},
        "metrics": (Metric("chosen/test_normalized", value), Metric("val/acc", 0.5, 300)),
        "tags": {"kind": kind, "tasks": "a+b"},
    }
    return RunRecord(**{**fields, **more})


def cut_off_after(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let the connection break right after a call of MLflow's client."""
    original = getattr(MlflowClient, name)

    def dying(*args: object, **kwargs: object) -> None:
        original(*args, **kwargs)
        raise ConnectionError("gone")

    patch.setattr(MlflowClient, name, dying)


def runs(target: Target, name: str = "taskgrid", view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(target.uri)
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id], run_view_type=view))


def current(target: Target, name: str = "taskgrid") -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs(target, name):
        if run.info.status == "FINISHED" and run.data.tags["superseded"] == "false":
            found.setdefault(run.data.tags["point_id"], []).append(run)
    return found
