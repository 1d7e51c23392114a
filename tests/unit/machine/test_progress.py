"""Progress: a bar in a terminal, plain lines in a file."""

from __future__ import annotations

import io

import pytest

from taskgrid.machine import progress
from taskgrid.machine.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_plain_lines_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 10.0, 10.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress("finetune digits", 100, "step", stream) as bar:
        bar.advance(10)
        bar.note(loss=0.51234)
        bar.advance(10)
    first, last = stream.getvalue().splitlines()
    assert first == "finetune digits: 20/100 step, 2.0 step/s, 40 s left, loss=0.5123"
    assert last.startswith("finetune digits: 20/100 step")
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with Progress("evaluate", 3, "point", stream) as bar:
        bar.advance(3)
    assert "evaluate" in stream.getvalue()
    assert "3/3" in stream.getvalue()
