"""The registry is brought level with the records, whatever happened before."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskgrid.tracking.access import check_reachable
from taskgrid.tracking.records import Artifact, Dataset, Metric, write_records
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.report import SyncReport
from taskgrid.tracking.target import Target, resolve_target, shown_uri, withheld

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from taskgrid.tracking import mlflow_store
from tests.unit.example_registry import current, record, runs

ROOT = Path(__file__).resolve().parents[3]


def test_a_record_becomes_a_run_with_everything_in_it(target: Target, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    given = record(
        "a+b",
        params={"lr": "0.001", "note": "x" * 7000},
        metrics=tuple(Metric("val/acc", step / 10, 100 * step) for step in range(11)),
        datasets=(Dataset("a", "d" * 32, "train"), Dataset("a", "d" * 32, "val")),
        artifacts=(Artifact.of(tmp_path / "manifest.json"),),
        note="**a**",
        machine={"commit": "abc-dirty"},
        started="2026-01-02T03:04:05+00:00",
        seconds=61.5,
    )
    report = sync_records([given], target)
    assert (report.created, report.status) == (1, "level")
    (run,) = runs(target)
    assert run.info.run_name == "a+b" and run.info.status == "FINISHED"
    assert run.info.start_time == 1767323045000 and run.info.end_time - run.info.start_time == 61500
    assert run.data.params["lr"] == "0.001" and len(run.data.params["note"]) == 6000
    assert run.data.tags["tasks"] == "a+b"
    assert run.data.tags["content_key"] == given.content_key
    client = MlflowClient(target.uri)
    history = client.get_metric_history(run.info.run_id, "val/acc")
    assert {(m.step, m.value) for m in history} == {(100 * s, s / 10) for s in range(11)}
    assert run.data.metrics["val/acc"] == 1.0
    (one,) = {(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs}
    # Beside the name a column has room for no more; the source says it all.
    assert one == ("a", "d" * 8)
    source = json.loads(run.inputs.dataset_inputs[0].dataset.source)
    assert source == {"task": "a", "split": "d" * 32}
    folder = tmp_path / "mlartifacts" / run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "row.csv"}
    assert (run.data.tags["mlflow.note.content"], run.data.tags["machine.commit"]) == (
        "**a**",
        "abc-dirty",
    )
    assert run.data.tags["mlflow.source.git.commit"] == "abc"


def test_the_same_records_again_change_nothing(target: Target) -> None:
    given = [record("a"), record("b"), record("e", kind="expert")]
    first = sync_records(given, target)
    before = {run.info.run_id: run.data.to_dictionary() for run in runs(target)}
    again = sync_records([dataclasses.replace(each, seconds=9.0) for each in given], target)
    assert (first.created, again.created, again.unchanged) == (3, 0, 3)
    assert {run.info.run_id: run.data.to_dictionary() for run in runs(target)} == before
    assert len(runs(target, "taskgrid-experts")) == 1


def test_a_run_has_the_duration_of_its_record_and_none_is_made_up(target: Target) -> None:
    at = {"started": "2026-01-02T03:04:05+00:00"}
    timed, found = record("a", **at, seconds=1.5), record("b")
    expert = record("e", kind="expert", seconds=60.0)

    def spans() -> dict[str, tuple[int, int | None]]:
        every = [*runs(target), *runs(target, "taskgrid-experts")]
        return {run.info.run_name: (run.info.start_time, run.info.end_time) for run in every}

    before = 1000 * time.time()
    sync_records([timed, found, expert], target)
    known = spans()
    assert known["a"] == (1767323045000, 1767323046500)
    assert known["b"][1] is None and current(target)["subset/b"]
    # An expert's record does not say when it began: it ends when it is logged, and not after that.
    assert known["e"][1] - known["e"][0] == 60000
    assert before - 1 <= known["e"][1] <= 1000 * time.time()
    # Its rows were found again: what is known stays. They were measured again: the same run, updated.
    sync_records([dataclasses.replace(timed, started=None, seconds=None), found, expert], target)
    assert spans() == known
    again = [dataclasses.replace(timed, seconds=2.0), dataclasses.replace(found, seconds=0.5)]
    assert sync_records(again, target).unchanged == 2
    assert spans()["a"] == (1767323045000, 1767323047000)
    assert spans()["b"] == (known["b"][0], known["b"][0] + 500)
    assert len(current(target)["subset/a"]) == 1


def test_a_run_says_on_what_it_was_measured_last(target: Target) -> None:
    measured = record("a", machine={"batch_size": "128", "torch": "2.11.0"})
    sync_records([measured, record("b")], target)

    def tags(name: str) -> dict[str, str]:
        (run,) = current(target)[f"subset/{name}"]
        return {key: tag for key, tag in run.data.tags.items() if key.startswith("machine.")}

    assert tags("a") == {"machine.batch_size": "128", "machine.torch": "2.11.0"}
    assert tags("b") == {}
    # Its rows were found again, and then measured elsewhere: no new run.
    assert sync_records([record("a")], target).unchanged == 1
    assert tags("a") == {"machine.batch_size": "128", "machine.torch": "2.11.0"}
    elsewhere = record("a", machine={"batch_size": "64", "torch": "2.15.0"})
    assert sync_records([elsewhere], target).unchanged == 1
    assert tags("a") == {"machine.batch_size": "64", "machine.torch": "2.15.0"}


def test_a_changed_record_supersedes_its_run(target: Target) -> None:
    sync_records([record("a", 1.0), record("b", 1.0)], target)
    report = sync_records([record("a", 2.0), record("b", 1.0)], target)
    assert (report.created, report.superseded, report.unchanged) == (1, 1, 1)
    by_value = {
        (run.data.tags["point_id"], run.data.metrics["chosen/test_normalized"]): run.data.tags[
            "superseded"
        ]
        for run in runs(target)
    }
    assert by_value == {
        ("subset/a", 1.0): "true",
        ("subset/a", 2.0): "false",
        ("subset/b", 1.0): "false",
    }
    back = sync_records([record("a", 1.0), record("b", 1.0)], target)
    assert (back.created, back.superseded) == (1, 1)
    assert {name: len(found) for name, found in current(target).items()} == {
        "subset/a": 1,
        "subset/b": 1,
    }


def test_children_hang_below_the_current_run_of_their_parent(target: Target) -> None:
    child = record("a", parent="grid/g")
    point = record("a/0.30", kind="point", parent="subset/a")
    sync_records([point, child, record("g", 1.0, kind="grid")], target)
    sync_records([point, child, record("g", 2.0, kind="grid")], target)
    (grid,) = current(target, "taskgrid-grids")["grid/g"]
    (subset,) = current(target)["subset/a"]
    assert grid.data.metrics["chosen/test_normalized"] == 2.0
    assert subset.data.tags["mlflow.parentRunId"] == grid.info.run_id
    (leaf,) = current(target, "taskgrid-points")["point/a/0.30"]
    assert leaf.data.tags["mlflow.parentRunId"] == subset.info.run_id


def test_points_that_left_the_grid_are_tagged_and_come_back(target: Target) -> None:
    both, one = [record("a"), record("b")], [record("a")]
    sync_records(both, target, whole_grid=True)
    assert sync_records(one, target).retired == 0  # a part of the records says nothing of the rest
    assert sync_records(one, target, whole_grid=True).retired == 1
    assert sync_records(one, target, whole_grid=True).retired == 0
    tags = {run.data.tags["point_id"]: run.data.tags["in_grid"] for run in runs(target)}
    assert tags == {"subset/a": "true", "subset/b": "false"}
    back = sync_records(both, target, whole_grid=True)
    assert (back.created, back.unchanged) == (0, 2)
    assert {run.data.tags["in_grid"] for run in runs(target)} == {"true"}


def test_a_kind_that_vanished_is_retired_too(target: Target) -> None:
    point = record("a/0.30", kind="point", parent="subset/a")
    sync_records([record("a"), point], target, whole_grid=True)
    assert sync_records([record("a")], target, whole_grid=True).retired == 1


def test_more_than_a_request_holds(target: Target) -> None:
    given = record(
        "big",
        params={f"p{i}": str(i) for i in range(230)},
        metrics=tuple(Metric(f"m{i % 3}", float(i), i) for i in range(2500)),
        tags={f"t{i}": "x" * 9000 for i in range(210)},
    )
    assert sync_records([given], target).created == 1
    (run,) = runs(target)
    assert len(run.data.params) == 230
    assert sum(key.startswith("t") for key in run.data.tags) >= 210
    history = MlflowClient(target.uri).get_metric_history(run.info.run_id, "m1")
    assert [(m.step, m.value) for m in history] == [(i, float(i)) for i in range(1, 2500, 3)]


def test_names_that_mlflow_refuses_are_made_fit(target: Target) -> None:
    given = record("x", metrics=(Metric("val/accuracy/größe{1}", 0.5), Metric("k" * 300, 1.0)))
    assert sync_records([given], target).status == "level"
    (run,) = runs(target)
    assert "k" * 250 in run.data.metrics and run.data.metrics["val/accuracy/größe_1_"] == 0.5


def test_one_refused_record_does_not_hold_up_the_others(target: Target, tmp_path: Path) -> None:
    (tmp_path / "f.png").write_bytes(b"png")
    lost = record("lost", artifacts=(Artifact.of(tmp_path / "f.png"),))
    (tmp_path / "f.png").unlink()
    nameless = record("odd", params={"a b\n?": "1"})
    report = sync_records([lost, nameless, record("good")], target)
    assert report.status == "incomplete" and report.created == 1
    assert set(current(target)) == {"subset/good"}
    assert "subset/lost" in report.failed[0] and "f.png is missing" in report.failed[0]
    assert report.failed[1].startswith("subset/odd: ")


class Killed(BaseException):
    """Stands for a process that ends here and now."""


WRITES = (
    "create_experiment",
    "create_run",
    "log_batch",
    "log_inputs",
    "set_tag",
    "delete_run",
    "set_terminated",
)


@contextlib.contextmanager
def killed_at(count: int, *, after: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Die at the ``count``-th write to the store, before or after it took effect."""
    calls: list[str] = []

    def patched(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            if len(calls) == count and not after:
                raise Killed
            result = original(*args, **kwargs)
            if len(calls) == count and after:
                raise Killed
            return result

        return call

    with monkeypatch.context() as patch:
        for name in WRITES:
            patch.setattr(MlflowClient, name, patched(name, getattr(MlflowClient, name)))
        patch.setattr(mlflow_store, "put_files", patched("put_files", mlflow_store.put_files))
        yield calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_dying_at_any_write_leaves_at_most_one_current_run(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    (tmp_path / "f.png").write_bytes(b"png")
    more = {
        "artifacts": (Artifact.of(tmp_path / "f.png"),),
        "datasets": (Dataset("a", "1" * 32, "val"),),
    }
    version, count = 0, 0
    while True:
        version, count = version + 1, count + 1
        given = [record("g", version, "grid"), record("a", version, parent="grid/g", **more)]
        died = True
        dying = killed_at(count, after=after, monkeypatch=monkeypatch)
        with dying as calls, contextlib.suppress(Killed):
            sync_records(given, target)
            died = False
        experiments = {e.name for e in MlflowClient(target.uri).search_experiments()}
        for name in experiments & {"taskgrid", "taskgrid-grids"}:
            assert all(len(found) == 1 for found in current(target, name).values()), calls
        assert sync_records(given, target).status == "level"
        for name in ("taskgrid", "taskgrid-grids"):
            ((run,),) = current(target, name).values()
            assert run.data.metrics["chosen/test_normalized"] == version
            # Nothing half-made is left to be seen.
            assert {run.info.status for run in runs(target, name)} == {"FINISHED"}
            assert {run.data.tags["superseded"] for run in runs(target, name)} <= {"true", "false"}
        if not died:
            break
    assert count > 10  # every write of a replacement was tried


def test_killed_process_is_made_good(target: Target, tmp_path: Path) -> None:
    given = [record(f"s{i}") for i in range(40)]
    write_records(tmp_path / "records.json", given)
    process = subprocess.Popen(
        [sys.executable, "-c", SYNC + "sync()", str(tmp_path)], env=environment()
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not 3 < len(finished(target)) < 40:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 3 < len(finished(target)) < 40
    report = sync_records(given, target)
    assert report.status == "level" and report.created + report.unchanged == 40
    assert Counter(len(found) for found in current(target).values()) == {1: 40}


def finished(target: Target) -> list[Run]:
    client = MlflowClient(target.uri)
    experiment = client.get_experiment_by_name("taskgrid")
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'"))


def test_eight_processes_on_a_fresh_store(tmp_path: Path) -> None:
    given = [record(f"s{i}") for i in range(3)]
    write_records(tmp_path / "records.json", given)
    # One import, eight processes: no store is opened before they part.
    code = SYNC + (
        "import os, taskgrid.tracking.mlflow_store\n"
        "children = []\n"
        "for _ in range(8):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        print(sync().sentence(), flush=True)\n"
        "        os._exit(0)\n"
        "    children.append(child)\n"
        "assert not any([os.waitpid(child, 0)[1] for child in children])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    told = Counter(line.split(":")[-1].strip() for line in done.stdout.splitlines())
    assert told == {"3 new": 1, "3 unchanged": 7}
    target = resolve_target(None, results=tmp_path, environ={})
    assert Counter(len(found) for found in current(target).values()) == {1: 3}


def test_a_sync_waits_for_another(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskgrid.tracking.access._PATIENCE", 0.2)
    with target.lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        report = sync_records([record("a")], target)
        assert report.status == "delayed" and "another process holds" in report.reason
    assert sync_records([record("a")], target).created == 1


def test_two_current_runs_of_one_point_are_reduced_to_one(target: Target) -> None:
    sync_records([record("a", 1.0)], target)
    client = MlflowClient(target.uri)
    (old,) = runs(target)
    # What two machines without a common lock file could leave behind.
    twin = client.create_run(old.info.experiment_id, tags=old.data.tags)
    client.set_terminated(twin.info.run_id)
    report = sync_records([record("a", 1.0)], target)
    assert (report.created, report.superseded) == (0, 1)
    assert {name: len(found) for name, found in current(target).items()} == {"subset/a": 1}


def test_deleted_runs_and_experiments_come_back(target: Target) -> None:
    sync_records([record("a")], target)
    client = MlflowClient(target.uri)
    client.delete_run(runs(target)[0].info.run_id)
    assert sync_records([record("a")], target).created == 1
    client.delete_experiment(client.get_experiment_by_name("taskgrid").experiment_id)
    assert sync_records([record("a")], target).status == "level"
    assert len(current(target)["subset/a"]) == 1


def test_runs_of_other_people_are_left_alone(target: Target) -> None:
    sync_records([record("a")], target)
    client = MlflowClient(target.uri)
    experiment = client.get_experiment_by_name("taskgrid").experiment_id
    mine = client.create_run(experiment, tags={"superseded": "false"})
    sync_records([record("b")], target, whole_grid=True)
    kept = client.get_run(mine.info.run_id)
    assert kept.info.status == "RUNNING" and "in_grid" not in kept.data.tags


def test_a_server_that_is_down_delays_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://user:secret@127.0.0.1:{port}"
    target = resolve_target(uri, results=tmp_path, environ={})
    begun = time.monotonic()
    report = sync_records([record("a"), record("b")], target)
    assert time.monotonic() - begun < 15
    assert (report.status, report.delayed, report.created) == ("delayed", 2, 0)
    assert f"http://127.0.0.1:{port} does not answer" in report.sentence()
    assert "secret" not in str(report.to_json())
    assert "\n" not in report.sentence() and "snakemake registry" in report.sentence()


def test_no_password_is_in_what_a_server_or_a_database_says(
    target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = dataclasses.replace(target, uri="postgresql://me:s3c%2Fret@host/db")
    said = f"{200 * 'x'} {known.uri} refuses s3c/ret, s3c%2Fret and http://other:pass-w0rd@host"
    assert "s3c" not in known.told(said) and "w0rd" not in known.told(said)
    assert known.told(said).endswith("postgresql://host/db refuses ***, *** and http://***@host")
    assert "s3c" not in repr(known)

    def refuse(self: MlflowClient, *args: object, **kwargs: object) -> Run:
        raise ConnectionError("http://me:s3cret@host/ is gone")

    monkeypatch.setattr(MlflowClient, "create_run", refuse)
    report = sync_records([record("a")], target)
    assert "http://***@host/ is gone" in report.reason


def test_a_registry_that_is_asked_with_a_password_is_asked_by_its_own_name(tmp_path: Path) -> None:
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Host"]))
            self.send_error(401)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}"
        check_reachable(resolve_target(f"http://me:s3cret@{place}", results=tmp_path, environ={}))
        server.shutdown()
    assert asked == [("/health", place)]


def test_a_job_gets_the_password_from_its_environment_alone(tmp_path: Path) -> None:
    uri = "postgresql://me:s3cret@host/db"
    assert shown_uri(uri) == "postgresql://host/db"
    environ = withheld(uri)
    assert list(environ.values()) == [uri]
    assert resolve_target(shown_uri(uri), results=tmp_path, environ=environ).uri == uri
    assert resolve_target(shown_uri(uri), results=tmp_path, environ={}).uri == shown_uri(uri)
    assert withheld("http://host") == withheld("sqlite:////a@b/c.db") == withheld(None) == {}


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../../x", "..", 'it\'s "x" & ünï'])
def test_an_experiment_of_any_name_keeps_its_artifacts_in_one_place(
    empty_store: Path, tmp_path: Path, name: str
) -> None:
    results = tmp_path / "in here" / "results"
    results.mkdir(parents=True)
    shutil.copy(empty_store, results / "mlflow.db")
    (tmp_path / "note.txt").write_text("a")
    target = resolve_target(None, name, results=results, environ={})
    report = sync_records([record("a", artifacts=(Artifact.of(tmp_path / "note.txt"),))], target)
    assert report.status == "level", report
    (kept,) = [path for path in tmp_path.rglob("note.txt") if path.parent != tmp_path]
    assert kept.resolve().is_relative_to(results / "mlartifacts")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_of_any_name_holds_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / 'it\'s a "$HOME" & ünï %20?#' / "results"
    results.mkdir(parents=True)
    monkeypatch.chdir(results.parent)
    assert sync_records([record("a")], resolve_target(None, environ={})).status == "level"
    assert (results / "mlflow.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [results.parent.name]
    assert [path.name for path in results.parent.iterdir()] == ["results"]


def test_a_server_that_never_answers_delays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskgrid.tracking.access._ANSWER_WITHIN", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        report = sync_records([record("a")], resolve_target(uri, results=tmp_path, environ={}))
    assert report.status == "delayed" and "does not answer" in report.reason


def test_a_store_that_breaks_on_the_way_delays_the_rest(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MlflowClient.create_run

    def flaky(self: MlflowClient, *args: object, **kwargs: object) -> Run:
        if kwargs["run_name"] == "b":
            raise ConnectionError("the network is gone\nand more")
        return original(self, *args, **kwargs)

    given = [record("a"), record("b"), record("c")]
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", flaky)
        report = sync_records(given, target)
    assert (report.created, report.delayed, report.status) == (1, 2, "delayed")
    assert report.reason.endswith("(the network is gone)")
    later = sync_records(given, target)
    assert (later.created, later.unchanged, later.status) == (2, 1, "level")


def test_an_unwritable_folder_delays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = resolve_target(None, results=tmp_path / "file" / "results", environ={})
    report = sync_records([record("a")], target)
    assert report.status == "delayed" and "cannot write" in report.reason


def test_a_file_store_is_refused_in_one_sentence(tmp_path: Path) -> None:
    report = sync_records(
        [record("a")], resolve_target("file:./mlruns", results=tmp_path, environ={})
    )
    assert report.status == "delayed"
    assert "set tracking.uri to sqlite:///results/mlflow.db" in report.reason


def test_where_the_registry_is(tmp_path: Path) -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://one:5000"}
    assert resolve_target("http://two", results=tmp_path, environ=environ).uri == "http://one:5000"
    two = resolve_target("http://two", results=tmp_path, environ={})
    assert two.uri == "http://two" and two.artifacts is None
    assert two.lock == tmp_path / "registry" / "sync.lock"
    default = resolve_target(None, "mine", results=tmp_path, environ={"MLFLOW_TRACKING_URI": ""})
    assert default.uri == f"sqlite:///{tmp_path}/mlflow.db" and default.experiment == "mine"
    assert default.artifacts == tmp_path / "mlartifacts"
    assert default.lock == tmp_path / "mlflow.db.lock"


def test_the_report_speaks(target: Target) -> None:
    report = SyncReport("sqlite:///x", created=2, superseded=1, failed=("a: b",))
    assert report.sentence() == "MLflow at sqlite:///x: 2 new, 1 superseded, 1 refused"
    assert SyncReport("u").sentence() == "MLflow at u: nothing to log"
    ticks: list[int] = []
    sync_records([record("a"), record("b")], target, advance=ticks.append)
    assert ticks == [1, 1]


SYNC = """
import sys
from pathlib import Path
from taskgrid.tracking.records import read_records
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import resolve_target

def sync():
    results = Path(sys.argv[1])
    target = resolve_target(None, results=results, environ={})
    return sync_records(read_records(results / "records.json"), target)

"""


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    return {**clean, "PYTHONPATH": str(ROOT / "src")}
