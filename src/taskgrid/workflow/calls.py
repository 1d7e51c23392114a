"""Calls of Snakemake in a working folder: whose lock is held, and whose was left by a killed one.

Snakemake's lock says which files, not whose. So each call leaves a note beside it, and goes with it,
also by ``snakemake --unlock``. Its writer holds the note for as long as it lives, however it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import platform
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import IO

from taskgrid.sentences import without_secrets
from taskgrid.workflow import queue

LOCKS = Path(".snakemake/locks")

_NOTE = "*.call"
_UNLOCK = "if it is no longer there, `snakemake --unlock` takes its lock away"
_INTERRUPTED = (
    "interrupted: what is finished is kept; the same command goes on from there, trainings from their "
    "last checkpoint"
)


@dataclass(frozen=True)
class Call:
    """A call of Snakemake: the process, where it runs, and since when (local time)."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def announce(folder: Path = LOCKS) -> str | None:
    """Leave a note of this call until it ends, and take away the lock that a killed one left.

    Only of this host is a call known to be dead; a lock of another host is never taken away. The note
    comes first, so that of two calls at once at least one sees the other.

    Args:
        folder: Snakemake's folder of locks.

    Returns:
        What a person should know of other calls, if anything.
    """
    # A folder that takes no note takes no lock either, which Snakemake will say.
    with contextlib.suppress(OSError):
        mine = _leave_note(folder)
        me = (mine.pid, mine.host)
        locks = sorted(folder.glob("*.lock"))
        living: list[tuple[Path, Call]] = []
        dead: list[tuple[Path, Call]] = []
        for path in sorted(folder.glob(_NOTE)):
            call = _read(path)
            if call is not None and (call.pid, call.host) != me:
                (dead if _is_dead(path, call) else living).append((path, call))
        if living:
            calls = "; ".join(str(call) for _, call in living)
            return f"Snakemake runs in this folder already: {calls}; {_UNLOCK}" if locks else None
        # Whoever locked had left its note before: a lock that is older is of somebody who leaves none.
        ages = [path.stat().st_mtime for path, _ in dead]
        left = bool(dead) and all(lock.stat().st_mtime >= min(ages) for lock in locks)
        for path in [*(locks if left else ()), *(path for path, _ in dead)]:
            path.unlink(missing_ok=True)
        if locks and left:
            return (
                f"a call of Snakemake was killed here ({dead[-1][1]}); its lock is taken away, what it "
                "finished is kept, what it was at is made again"
            )
    return None


def left_behind(folder: Path = LOCKS) -> str | None:
    """Say which jobs a killed call left with SLURM, for nothing may be computed twice at once.

    While another call lives they are its own, and Snakemake's lock says whether both may run.

    Args:
        folder: Snakemake's folder of locks.
    """
    return None if living(folder) else queue.refusal(queue.jobs_of(Path.cwd()))


def living(folder: Path = LOCKS) -> list[Call]:
    """Return the other calls of Snakemake that have not ended, as far as this host can tell.

    Args:
        folder: Snakemake's folder of locks.
    """
    found = [(path, _read(path)) for path in sorted(folder.glob(_NOTE))]
    return [
        call
        for path, call in found
        if call is not None and call.pid != os.getpid() and not _is_dead(path, call)
    ]


def explain_interrupts() -> None:
    """Let Ctrl-C end with a line that says what is kept and how to go on."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # a shell's background, where nobody presses it, or somebody else's business

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        # Registered last, the line is the last one. Ctrl-C again says it once all the same.
        atexit.unregister(_say_interrupted)
        atexit.register(_say_interrupted)
        # Snakemake takes it for the same, and where it expects neither there is no traceback.
        raise SystemExit(128 + signal.SIGINT)

    with contextlib.suppress(ValueError):  # in a thread there are no signals
        signal.signal(signal.SIGINT, interrupted)


_WHERE = vars(logging.makeLogRecord({})).keys() - {"msg", "exc_text", "stack_info"}
"""What any record says of the place that it comes from, in names of the code."""


def hide_secrets(record: logging.LogRecord) -> bool:
    """Filter Snakemake's log: it quotes command lines, and what libraries say."""
    texts = {
        key: without_secrets(value)
        for key, value in vars(record).items()
        if key not in _WHERE and isinstance(value, str)
    }
    vars(record).update(texts)
    return True


def _say_interrupted() -> None:
    print(_INTERRUPTED, file=sys.stderr, flush=True)


def _leave_note(folder: Path) -> Call:
    call = Call(os.getpid(), platform.node(), datetime.now().isoformat(" ", "minutes"))
    folder.mkdir(parents=True, exist_ok=True)
    # Held before it has its name: nobody may find it free.
    handle, temporary = tempfile.mkstemp(prefix=".", dir=folder)
    stream = os.fdopen(handle, "w")
    with contextlib.suppress(OSError):
        fcntl.flock(stream, fcntl.LOCK_EX)
    json.dump(asdict(call), stream)
    stream.flush()
    path = folder / f"{Path(temporary).name[1:]}.call"
    Path(temporary).replace(path)
    atexit.register(_forget, path, stream)
    return call


def _forget(path: Path, stream: IO[str]) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        stream.close()


def _read(path: Path) -> Call | None:
    # Another call may end at this moment, or the machine have stopped before the text was on its disk.
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Call(**json.loads(path.read_text(encoding="utf-8")))
    return None


def _is_dead(path: Path, call: Call) -> bool:
    if call.host != platform.node():
        return False
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return not _is_process(call.pid)  # a file system that holds no such locks
    return True


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True
