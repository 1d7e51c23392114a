"""Live curves of a training: handed to a process that writes them to a tracking server.

The training never waits for that process and never fails with it. Between them is a pipe: what does not fit
into it (64 kB) is left out, and is written from the run record when all is over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from taskgrid.machine.progress import Listener
from taskgrid.tracking.registry import be_quiet

_PATIENCE = 2.0
"""Seconds that the process has for what is still in the pipe when the training is over."""
_QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


@contextmanager
def live_curves(
    tracking: Mapping[str, Any] | None,
    training: Mapping[str, Any],
    command: Sequence[str] = (sys.executable, "-m", "taskgrid.tracking.mlflow_live"),
) -> Iterator[Listener]:
    """Give what takes points of curves while the block lasts; they are handed on if there is room.

    Args:
        tracking: ``uri``, ``experiment`` and ``results`` of the registry; None sends nothing.
        training: settings of the training.
        command: the process, which is given both as JSON.
    """
    process = None
    if tracking is not None:
        process = _started([*command, json.dumps({**tracking, "training": training})])
    if process is None or process.stdin is None:
        yield lambda _: None
        return
    pipe = process.stdin
    os.set_blocking(pipe.fileno(), False)

    def say(what: object) -> None:
        # Full, or nobody listens any more. Lines are shorter than PIPE_BUF: they are written whole, or not.
        with suppress(OSError):
            os.write(pipe.fileno(), json.dumps(what).encode() + b"\n")

    try:
        yield say
    except BaseException as error:
        say("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    else:
        say("FINISHED")
    finally:
        pipe.close()
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(
            "live curves in MLflow are not complete (the server is slow); the registry is written later",
            file=sys.stderr,
        )


def _started(command: Sequence[str]) -> subprocess.Popen[bytes] | None:
    environ = {**os.environ}
    be_quiet(environ)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**environ, **_QUICK},
            bufsize=0,
        )
    except OSError:
        return None
