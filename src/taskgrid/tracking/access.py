"""Whether a registry can be written now: it answers, and no other process writes it."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from taskgrid.errors import TrackingError
from taskgrid.store.atomic import explain_os_error
from taskgrid.tracking.target import Target

_ANSWER_WITHIN = 5.0
"""Seconds that a server has to show that it is there."""
_PATIENCE = 600.0
"""Seconds to wait for another process that writes the same registry."""


def check_reachable(target: Target) -> None:
    """Ask a server whether it is there, once and briefly.

    Raises:
        TrackingError: if it does not answer.
    """
    if target.uri.startswith(("file:", "/", ".")):
        raise TrackingError(
            f"{target.shown} is a folder, which MLflow 3 does not write to; set tracking.uri to "
            "sqlite:///results/mlflow.db"
        )
    if not target.is_remote:
        return
    try:
        # Without the user's name and password, which urllib would take for the host's name.
        with urllib.request.urlopen(f"{target.shown.rstrip('/')}/health", timeout=_ANSWER_WITHIN):
            pass
    except urllib.error.HTTPError:
        return  # it answered; whether it likes the question is for the client to find out
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"the MLflow server {target.shown} does not answer ({reason})"
        ) from error


def check_free(host: str, port: int) -> None:
    """See whether a server can listen at a port.

    Raises:
        TrackingError: if another program does.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise TrackingError(
                f"port {port} is taken ({error.strerror}); stop what listens there, or choose another: "
                f"make ui PORT={port + 1}"
            ) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the system frees it when the process ends, however it ends.

    Raises:
        TrackingError: if another process holds it for too long, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w")
    except OSError as error:
        raise TrackingError(str(explain_os_error(error, path))) from error
    with stream:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise TrackingError(f"another process holds {path}") from error
                time.sleep(0.05)
        yield
