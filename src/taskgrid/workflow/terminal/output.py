"""What jobs and the scheduler print, in a file and not in the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

RUN_LOG = Path("results/logs/run.log")

_STREAMS = (1, 2)


class JobOutput:
    """Lets what this process and its children print go to a file, until it is closed.

    Args:
        path: the file, which is added to: two calls in one folder must not write over each other.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path = RUN_LOG) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", errors="replace")
        _flush()
        self._saved = {stream: os.dup(stream) for stream in _STREAMS}
        for stream in _STREAMS:
            os.dup2(self._file.fileno(), stream)

    def write(self, text: str) -> None:
        """Write lines to the file."""
        print(text, file=self._file, flush=True)

    def close(self) -> None:
        """Give this process its streams back."""
        _flush()
        for stream, saved in self._saved.items():
            os.dup2(saved, stream)
            os.close(saved)
        self._saved = {}
        self._file.close()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
