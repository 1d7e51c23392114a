"""Live curves of a training: handed to a process that writes them to a tracking server.

The training never waits for that process and never fails with it. Between them is a pipe: what does not fit
into it (64 kB) is left out, and is written from the run record when all is over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from taskgrid.machine.progress import Point
from taskgrid.tracking.registry import be_quiet

_PATIENCE = 2.0
"""Seconds that the process has for what is still in the pipe when the training is over."""
_QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class Live:
    """Takes points of curves while the block lasts.

    Args:
        tracking: ``uri``, ``experiment`` and ``results`` of the registry; None sends nothing.
        training: settings of the training.
        command: the process, which is given both as JSON.
    """

    def __init__(
        self,
        tracking: Mapping[str, Any] | None,
        training: Mapping[str, Any],
        command: Sequence[str] = (sys.executable, "-m", "taskgrid.tracking.mlflow_live"),
    ) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if tracking is not None:
            self._process = _started([*command, json.dumps({**tracking, "training": training})])

    def __enter__(self) -> Self:
        return self

    def __call__(self, newest: Sequence[Point]) -> None:
        """Hand on points, if there is room."""
        self._say(newest)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None or self._process.stdin is None:
            return
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._say("KILLED" if interrupted else "FAILED" if kind else "FINISHED")
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            print(
                "live curves in MLflow are not complete (the server is slow); the registry is written later",
                file=sys.stderr,
            )

    def _say(self, what: object) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            # Lines are shorter than PIPE_BUF: they are written whole, or not at all.
            os.write(self._process.stdin.fileno(), json.dumps(what).encode() + b"\n")
        except OSError:  # full, or nobody listens any more
            return


def _started(command: Sequence[str]) -> subprocess.Popen[bytes] | None:
    environ = {**os.environ}
    be_quiet(environ)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**environ, **_QUICK},
            bufsize=0,
        )
    except OSError:
        return None
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process
