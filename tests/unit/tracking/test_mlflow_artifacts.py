"""The files of runs are found wherever the folder of results lies."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from taskgrid.tracking.records import Artifact
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import Target, resolve_target

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.tracking import MlflowClient

from tests.unit.example_registry import record, runs


def places(target: Target) -> list[str]:
    with closing(sqlite3.connect(target.uri.removeprefix("sqlite:///"))) as tables:
        found = tables.execute(
            "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs"
        )
        return [place for (place,) in found]


def test_a_registry_holds_no_path_of_the_machine(target: Target, tmp_path: Path) -> None:
    (tmp_path / "f.png").write_bytes(b"png")
    given = record("a", artifacts=(Artifact.of(tmp_path / "f.png"),))
    assert sync_records([given], target).status == "level"
    assert all(place.startswith("mlflow-artifacts:/") for place in places(target))
    (run,) = runs(target)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(tmp_path / "mlartifacts", moved)
    folder = moved / "mlartifacts" / run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    assert (folder / "f.png").read_bytes() == b"png"
    assert (folder / "row.csv").read_text().startswith("name,")


def test_an_older_registry_forgets_where_it_was_and_keeps_its_runs(
    target: Target, tmp_path: Path
) -> None:
    client = MlflowClient(target.uri)
    # As they were made before, and in a folder that has moved since.
    old = Path("/somewhere/mlartifacts/else/results/mlartifacts")
    experiment = client.create_experiment("taskgrid", (old / "taskgrid").as_uri())
    kept = client.create_run(experiment, run_name="by hand")
    elsewhere = client.create_experiment("theirs", "file:///data/theirs")
    client.set_experiment_tag(experiment, "mlflow.note.content", "My own words.")
    assert sync_records([record("a")], target).status == "level"
    assert client.get_experiment(experiment).artifact_location == "mlflow-artifacts:/taskgrid"
    assert client.get_run(kept.info.run_id).info.artifact_uri == (
        f"mlflow-artifacts:/taskgrid/{kept.info.run_id}/artifacts"
    )
    assert client.get_experiment(elsewhere).artifact_location == "file:///data/theirs"
    (made,) = (run for run in runs(target) if run.info.run_id != kept.info.run_id)
    assert (tmp_path / f"mlartifacts/taskgrid/{made.info.run_id}/artifacts/row.csv").is_file()
    # What a person wrote stays; the views are new.
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.note.content"] == "My own words."
    assert "mlflow.sharedViewState.chosen" in tags
    before = places(target)
    assert sync_records([record("a")], resolve_target(None, results=tmp_path, environ={})).unchanged
    assert places(target) == before
