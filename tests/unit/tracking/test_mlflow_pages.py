"""`make ui` serves what is there, or says in a sentence why not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from taskgrid.tracking import mlflow_pages
from taskgrid.tracking.mlflow_pages import HOST, links, main, server
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import Target, resolve_target
from tests.unit.example_registry import record

CONFIG = str(Path(__file__).resolve().parents[3] / "config.yaml")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_pages.signal, "signal", lambda *_: None)


def said(results: Path, port: int) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--config", CONFIG, "--results", str(results), "--port", str(port)])
    return str(ended.value.code)


def test_links_lead_to_the_runs_and_the_views(target: Target) -> None:
    assert sync_records([record("a"), record("e", kind="expert")], target).status == "level"
    # The database stands for the server that shows it.
    found = links(target, target.uri, "http://here")
    assert list(found) == ["Runs", "Chosen points", "Curves over λ", "Experts"]
    assert found["Runs"].startswith("http://here/#/experiments/")
    assert found["Runs"].endswith("/runs?workflowType=machine_learning")
    assert found["Chosen points"].startswith(found["Runs"])
    other = resolve_target(None, "other", results=target.results, environ={})
    assert links(other, target.uri, "http://here") == {
        "Runs": "http://here/#/experiments?workflowType=machine_learning"
    }


def test_files_are_served_from_beside_the_database(target: Target, tmp_path: Path) -> None:
    command = server(target, 5001)
    place = command[command.index("--artifacts-destination") + 1]
    assert place == (tmp_path / "mlartifacts").as_uri()
    uri = "postgresql://user:secret@host/name"
    command = server(resolve_target(uri, results=tmp_path, environ={}), 5001)
    assert "--artifacts-destination" not in command
    # A command line is for everybody to read.
    assert "secret" not in " ".join(command)


def test_what_is_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert said(tmp_path, port) == (
            f"error: port {port} is taken (Address already in use); stop what listens there, or choose "
            f"another: make ui PORT={port + 1}"
        )
    assert said(tmp_path, port) == (
        f"error: there is no {tmp_path}/mlflow.db yet; make run, or snakemake registry, writes it"
    )


def test_a_server_that_does_not_answer_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{HOST}:{free.getsockname()[1]}")
    assert "does not answer" in said(tmp_path, 5000)
