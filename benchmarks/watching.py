"""Watching a program: wall time, processor time, and the memory of it and its children at once."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY = 0.1


@dataclass(frozen=True)
class Watched:
    """What a program took.

    Attributes:
        wall: seconds from start to end.
        processor: seconds of user and system time, which say what was computed on a busy machine too.
        peak: bytes of resident memory of the program and all below it, the most at one moment.
        text: what it printed.
    """

    wall: float
    processor: float
    peak: int
    text: str

    def __str__(self) -> str:
        """Say the three numbers."""
        return f"{self.wall:6.1f} s wall, {self.processor:6.1f} s processor, {self.peak / 2**20:6.0f} MiB"


def watched(command: Sequence[str], folder: Path, given: str = "") -> Watched:
    """Run a program to its end.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        given: what it reads from standard input.

    Raises:
        SystemExit: if it fails; says what it printed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as source:
        source.write(given)
        source.seek(0)
        before, started, peak = _children(), time.perf_counter(), 0
        process = subprocess.Popen(
            command, cwd=folder, stdin=source, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(_EVERY)
        wall, processor = time.perf_counter() - started, _children() - before
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(text)
    return Watched(wall, processor, peak, text)


def _children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _resident(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        tree = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
