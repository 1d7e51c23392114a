"""One line in a terminal that has a width; plain lines anywhere else."""

from __future__ import annotations

import io
import os
import pty
import select
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from taskgrid.workflow.terminal.display import Display


@contextmanager
def terminal(columns: int) -> Iterator[tuple[io.TextIOWrapper, int]]:
    """Open a terminal; yield what is written to, and what it shows."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    try:
        with open(theirs, "w") as stream:  # noqa: PTH123 (a number)
            yield stream, ours
    finally:
        os.close(ours)


def read(terminal: int) -> str:
    """Return what a terminal shows by now."""
    shown = b""
    while select.select([terminal], [], [], 0.2)[0]:
        shown += os.read(terminal, 8192)
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_shows_one_line_that_fits_and_takes_it_away() -> None:
    with terminal(60) as (stream, ours):
        display = Display(stream)
        display.show(0.25, "1 of 4 jobs " + "x" * 100)
        display.say("a warning")
        display.show(0.5, "2 of 4 jobs")
        display.close()
        display.say("the end")
        shown = read(ours)
    assert " 25% |" in shown and " 50% |" in shown and "2 of 4 jobs" in shown
    assert max(map(len, shown.replace("\n", "\r").split("\r"))) <= 60
    # Each line that stays begins where the line of progress was wiped out.
    stay = [line.strip("\r").split("\r")[-1] for line in shown.split("\n")]
    assert stay == ["a warning", "the end", ""]


@pytest.mark.parametrize("columns", [0, None])
def test_a_terminal_without_a_width_and_a_file_get_plain_lines(columns: int | None) -> None:
    clock = iter(range(0, 1000, 4))
    lines = []
    if columns is None:
        file = io.StringIO()
        display = Display(file, lambda: next(clock))
        for done in range(8):
            display.show(done / 8, f"{done} of 8 jobs")
        lines = file.getvalue().splitlines()
    else:
        with terminal(columns) as (stream, ours):
            display = Display(stream, lambda: next(clock))
            for done in range(8):
                display.show(done / 8, f"{done} of 8 jobs")
            lines = read(ours).splitlines()
    assert lines == [" 25%  2 of 8 jobs", " 62%  5 of 8 jobs"]
