"""Calls of Snakemake: a lock that a killed one left is taken away, any other one is let alone."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskgrid.workflow.calls import Call, announce, hide_secrets

# As Snakemake does: the Snakefile is read, then the lock is taken.
CALL = """
import signal, sys, time
from pathlib import Path
from taskgrid.workflow.calls import announce, explain_interrupts
# As in a shell's foreground, wherever the tests run.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
explain_interrupts()
print(announce(folder), flush=True)
(folder / "0.output.lock").write_text("results/x")
try:
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
except SystemExit:
    sys.exit("much is said at the end of a call")
"""


@contextmanager
def call(folder: Path, seconds: float = 60) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Make a call that has taken its lock; return it with what it said."""
    command = [sys.executable, "-c", CALL, str(folder), str(seconds)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as made:
        try:
            assert made.stdout is not None
            said = made.stdout.readline().strip()
            assert made.stdout.readline() == "locked\n"
            yield made, said
        finally:
            made.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".snakemake" / "locks"


def note(folder: Path, **changes: object) -> Path:
    """Leave the note of a call of which nothing else is known."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"pid": 2**22 + 1, "host": platform.node(), "since": "2026-01-02 03:04"}
    path = folder / "x.call"
    path.write_text(json.dumps({**known, **changes}))
    return path


def lock(folder: Path) -> Path:
    path = folder / "0.input.lock"
    path.write_text("data/x")
    return path


def test_the_lock_of_a_killed_call_is_taken_away_and_the_next_call_is_told(folder: Path) -> None:
    with call(folder) as (killed, said):
        assert said == "None"
        killed.kill()
        killed.wait()
    assert (folder / "0.output.lock").exists()
    with call(folder, 0) as (again, said):
        again.wait()
    sentence = (
        rf"a call .* was killed here \(process {killed.pid} on {re.escape(platform.node())}, since "
    )
    assert re.match(sentence, said) and "what it finished is kept" in said
    # The second call ended as it should, and its note with it; its lock is Snakemake's to take away.
    assert [path.name for path in folder.iterdir()] == ["0.output.lock"]


def test_a_call_that_lives_is_named_and_keeps_its_lock(folder: Path) -> None:
    with call(folder) as (alive, _):
        with call(folder, 0) as (other, said):
            other.wait()
        assert f"runs in this folder already: process {alive.pid} on {platform.node()}" in said
        assert "snakemake --unlock" in said
        assert (folder / "0.output.lock").exists()


def test_a_call_of_another_host_is_never_taken_for_dead(folder: Path) -> None:
    left, held = note(folder, host="elsewhere"), lock(folder)
    said = announce(folder)
    assert said is not None and "process 4194305 on elsewhere, since 2026-01-02 03:04" in said
    assert left.exists() and held.exists()


def test_a_lock_of_which_nobody_left_a_note_is_let_alone(folder: Path) -> None:
    folder.mkdir(parents=True)
    held = lock(folder)
    assert announce(folder) is None and held.exists()
    # Nor is it of a call that was killed later, before it took one.
    os.utime(held, (1, 1))
    dead = note(folder)
    assert announce(folder) is None and held.exists() and not dead.exists()


def test_a_damaged_note_stops_nobody(folder: Path) -> None:
    note(folder).write_text("{")
    assert announce(folder) is None


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert announce(tmp_path / "file" / "locks") is None


def test_without_locks_of_files_the_process_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    note(folder, pid=os.getppid())
    held = lock(folder)
    assert f"process {os.getppid()} on" in str(announce(folder)) and held.exists()
    note(folder)
    lock(folder)
    assert "was killed here" in str(announce(folder)) and not held.exists()


def test_an_interrupted_call_ends_with_what_is_kept_and_how_to_go_on(folder: Path) -> None:
    with call(folder) as (made, _):
        made.send_signal(signal.SIGINT)
        _, said = made.communicate()
    assert said.splitlines()[0] == "much is said at the end of a call"
    (line,) = said.splitlines()[1:]
    assert line.startswith("interrupted: what is finished is kept; the same command goes on")


def test_the_log_of_a_call_holds_no_password() -> None:
    text = "snakemake --config tracking={uri: http://me:s3cret@host/?token=s3cret}"
    record = logging.makeLogRecord({"msg": text, "cmd": text, "jobid": 3, "args": ()})
    assert hide_secrets(record)
    shown = "snakemake --config tracking={uri: http://***@host/?token=***}"
    assert (record.getMessage(), vars(record)["cmd"], vars(record)["jobid"]) == (shown, shown, 3)


def test_a_call_says_who_it_is() -> None:
    assert str(Call(7, "here", "2026-01-02 03:04")) == "process 7 on here, since 2026-01-02 03:04"
