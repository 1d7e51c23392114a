"""A training is never held up by those who watch it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from taskgrid.workflow import live
from taskgrid.workflow.live import live_curves
from taskgrid.workflow.settings import registry
from tests.unit.workflow.example_experiment import experiment

POINT = (20, "train/loss", 0.5)


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import sys, time\n{text}")


def test_points_and_the_end_arrive(tmp_path: Path) -> None:
    out = tmp_path / "out"
    reads = program(f"open({str(out)!r}, 'w').write(sys.argv[1] + '\\n' + sys.stdin.read())")
    with live_curves({"uri": "http://x"}, {"task": "t"}, reads) as listen:
        listen([POINT])
    assert list(map(json.loads, out.read_text().splitlines())) == [
        {"training": {"task": "t"}, "uri": "http://x"},
        [list(POINT)],
        "FINISHED",
    ]
    for error, status in ((ValueError(), "FAILED"), (SystemExit(143), "KILLED")):
        with pytest.raises(type(error)), live_curves({}, {}, reads):
            raise error
        assert json.loads(out.read_text().splitlines()[-1]) == status


@pytest.mark.parametrize("text", ["time.sleep(60)", "sys.exit(1)", None])
def test_nobody_who_listens_holds_a_training_up(
    text: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "_PATIENCE", 0.2)
    command = ("/no/such/program",) if text is None else program(text)
    with live_curves({}, {}, command) as listen:
        begun = time.process_time()
        for _ in range(20_000):  # a pipe takes about two thousand of them
            listen([POINT])
        assert time.process_time() - begun < 5
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert ("not complete" in capsys.readouterr().err) == (text == "time.sleep(60)")


def test_without_a_server_nothing_is_started() -> None:
    with live_curves(None, {}, ("/no/such/program",)) as listen:
        listen([POINT])
    assert registry.live(experiment(), {}) == []
    assert registry.live(experiment(), {"MLFLOW_TRACKING_URI": "sqlite:///x.db"}) == []


def test_a_server_is_shown_without_its_password() -> None:
    known = experiment(tracking={"uri": "https://me:s3cret@host:5000", "experiment": "mine"})
    name, given = registry.live(known, {})
    assert name == "--tracking" and json.loads(given)["uri"] == "https://host:5000"
    assert json.loads(given)["experiment"] == "mine"
