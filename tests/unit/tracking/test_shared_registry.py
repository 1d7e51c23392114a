"""One registry for several results folders, behind a server that comes and goes, of another version."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from taskgrid.tracking.project import keep_project, project_of
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import Target, resolve_target
from tests.unit.example_registry import current, record, runs

from mlflow.entities import Run  # isort: skip
from mlflow.tracking import MlflowClient  # isort: skip


def shared_by(name: str, target: Target) -> Target:
    """Return another results folder's view of a registry."""
    return resolve_target(target.uri, results=target.results / name / "results", environ={})


def everything(target: Target, project: str) -> dict[str, dict[str, object]]:
    return {
        run.info.run_id: {**run.data.to_dictionary(), "status": run.info.status}
        for run in runs(target)
        if run.data.tags["project"] == project
    }


def test_two_projects_do_not_touch_each_others_runs(target: Target) -> None:
    one, two = shared_by("one", target), shared_by("two", target)
    assert one.project != two.project
    sync_records([record("a", 1.0), record("b", 1.0)], one, whole_grid=True)
    # What an interrupted synchronisation of the first left behind is the first's to mend.
    client = MlflowClient(target.uri)
    experiment = client.get_experiment_by_name("taskgrid").experiment_id
    tags = {"project": one.project, "point_id": "subset/c", "superseded": "false"}
    client.create_run(experiment, tags=tags)
    before = everything(target, one.project)

    # The same points, of other content and of the same; fewer of them, and again.
    first = sync_records([record("a", 2.0), record("b", 1.0)], two, whole_grid=True)
    again = sync_records([record("a", 3.0)], two, whole_grid=True)
    assert (first.created, again.created, again.superseded, again.retired) == (2, 1, 1, 1)
    assert everything(target, one.project) == before
    assert {name: len(found) for name, found in current(target).items()} == {
        "subset/a": 2,
        "subset/b": 2,
    }

    after = everything(target, two.project)
    mended = sync_records([record("a", 1.0), record("b", 1.0), record("c")], one, whole_grid=True)
    assert (mended.unchanged, mended.created, mended.repaired) == (2, 1, 1)
    assert everything(target, two.project) == after


def test_a_folder_that_moves_or_is_made_again_keeps_its_runs(
    target: Target, tmp_path: Path
) -> None:
    here = tmp_path / "my grid's" / "results"
    first = resolve_target(target.uri, results=here, environ={})
    assert first.project.startswith("my_grid_s-") and not here.exists()
    assert sync_records([record("a")], first).created == 1
    moved = shutil.move(here, tmp_path / "elsewhere")
    then = resolve_target(target.uri, results=moved, environ={})
    assert then.project == first.project and sync_records([record("a")], then).unchanged == 1
    again = resolve_target(target.uri, results=here, environ={})
    assert again.project == first.project and sync_records([record("a")], again).unchanged == 1
    assert len(runs(target)) == 1


def test_a_damaged_name_is_made_anew(tmp_path: Path) -> None:
    name = project_of(tmp_path / "results")
    keep_project(tmp_path / "results", "other")
    assert project_of(tmp_path / "results") == "other"
    (tmp_path / "results" / "registry" / "project.json").write_text("{")
    assert project_of(tmp_path / "results") == name


def test_a_run_that_was_asked_for_twice_is_there_once(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MlflowClient.create_run

    def twice(self: MlflowClient, *args: object, **kwargs: object) -> Run:
        # The server made the run and died before it said so; the client's HTTP layer asked again.
        original(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    sync_records([record("a", 1.0), record("b")], target)
    monkeypatch.setattr(MlflowClient, "create_run", twice)
    report = sync_records([record("a", 2.0), record("b"), record("c")], target)
    assert (report.created, report.superseded, report.repaired) == (2, 1, 2)
    assert {run.info.status for run in runs(target)} == {"FINISHED"}
    assert {name: len(found) for name, found in current(target).items()} == {
        "subset/a": 1,
        "subset/b": 1,
        "subset/c": 1,
    }


OLD = "cc1f77228345"  # a step on the way to the tables of today
NEW = "ffffffffffff"


@pytest.mark.parametrize(
    ("revision", "broken", "said"),
    [
        (OLD, False, "of an older version"),
        (NEW, False, "of a newer version"),
        (NEW, True, "of a newer version"),
    ],
)
def test_tables_of_another_version_are_a_sentence(
    target: Target, revision: str, broken: bool, said: str
) -> None:
    path = target.uri.removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        if broken:  # a table that is missing lets MLflow migrate at once
            database.execute("DROP TABLE logged_model_tags")
    database.close()
    content = Path(path).read_bytes()
    report = sync_records([record("a"), record("b")], target)
    assert (report.status, report.delayed) == ("delayed", 2)
    assert f"the tables of {target.uri} are {said}" in report.reason
    way = "pip install --upgrade mlflow" if revision == NEW else f"mlflow db upgrade {target.uri}"
    assert way in report.sentence() and "\n" not in report.sentence()
    assert Path(path).read_bytes() == content
