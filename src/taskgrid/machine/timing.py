"""Where the time of a job goes: its start, the rows of each merge, the updates of a training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Span:
    """Time that went into one merge.

    Attributes:
        started: when its first row was begun (ISO 8601 with offset).
        seconds: what its rows took together; those of other merges may lie between them.
    """

    started: str
    seconds: float


@dataclass(frozen=True)
class Timing:
    """What the time of an evaluation job went into; a job that found all its rows has measured nothing.

    Attributes:
        startup: seconds from the start of the process to the first image that was measured.
        measured: seconds from there to the last row.
        merges: time by name of the subset; only of merges of which rows were measured.
    """

    startup: float = 0.0
    measured: float = 0.0
    merges: Mapping[str, Span] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of start-up in the job's time."""
        return self.startup / max(self.startup + self.measured, 1e-9)

    def sentence(self) -> str:
        """Say how long it took to start and to measure, for a log."""
        return (
            f"{self.startup:.1f} s to start, {self.measured:.1f} s measured "
            f"(start-up {100 * self.share:.1f} %)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the timing as JSON values."""
        return {
            "startup_seconds": round(self.startup, 3),
            "measured_seconds": round(self.measured, 3),
            "merges": {
                name: {"started": span.started, "seconds": round(span.seconds, 3)}
                for name, span in sorted(self.merges.items())
            },
        }


class Stopwatch:
    """Counts from when it is made: what a job computes, without the start of its process."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def to_json(self) -> dict[str, Any]:
        """Return the seconds so far as JSON values."""
        return {"seconds": round(time.monotonic() - self._begun, 3)}


class Clock:
    """A stopwatch of one evaluation job: it starts once, then laps from row to row.

    Args:
        age: seconds that the process has lived already.
        now: seconds of a clock that never goes back.
        today: seconds since 1970.
    """

    def __init__(
        self,
        age: float = 0.0,
        now: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._today = today
        self._born = self._mark = now() - age
        self._first: float | None = None
        self._last = self._born
        self._spent: dict[str, list[float]] = {}

    @classmethod
    def of_process(cls) -> Clock:
        """Return a clock that counts from the start of this process."""
        return cls(process_age())

    def begin(self) -> None:
        """Start a lap: rows are measured from now on."""
        self._mark = self._now()

    def first_image(self) -> None:
        """Say that the first image is being measured; what came before was the start."""
        if self._first is None:
            self._first = self._mark = self._now()

    def lap(self, merge: str = "") -> None:
        """End a lap, which went into rows of a merge, or of none; start the next."""
        now = self._now()
        # Whoever does not tell when the first image came has measured since the lap began.
        self._first = self._mark if self._first is None else self._first
        if merge:
            begun = self._today() - (now - self._mark)
            self._spent.setdefault(merge, [begun, 0.0])[1] += now - self._mark
        self._mark = self._last = now

    def timing(self) -> Timing:
        """Return what the time went into so far."""
        if self._first is None:
            return Timing()
        return Timing(
            startup=self._first - self._born,
            measured=max(self._last - self._first, 0.0),
            merges={
                name: Span(datetime.fromtimestamp(begun, UTC).isoformat("T", "milliseconds"), spent)
                for name, (begun, spent) in self._spent.items()
            },
        )


def at_first_pass(tell: Callable[[], None]) -> Callable[[], None]:
    """Call ``tell`` when a network is run for the first time; return what calls it off."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    def once(*_: object) -> None:
        handle.remove()
        tell()

    handle = register_module_forward_pre_hook(once)
    return handle.remove


class Pace:
    """A stopwatch that runs while a training makes updates and rests during validation and saving.

    Args:
        arrive: waits until the device has done what it was told; called when the watch rests.
    """

    def __init__(self, arrive: Callable[[], object] = lambda: None) -> None:
        self.seconds = 0.0
        self.marks: list[tuple[int, float]] = []
        self._arrive = arrive
        self._since: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run within the block."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Rest within the block, if the watch runs at all."""
        ran = self._since is not None
        self._stop()
        try:
            yield
        finally:
            if ran:
                self._since = time.perf_counter()

    def mark(self, step: int) -> None:
        """Note in ``marks`` how long the first ``step`` updates took; the watch must be resting."""
        self.marks.append((step, self.seconds))

    def _stop(self) -> None:
        if self._since is None:
            return
        self._arrive()
        self.seconds += time.perf_counter() - self._since
        self._since = None


def process_age() -> float:
    """Return how many seconds ago this process was started.

    Where the system keeps no ``/proc``, the CPU time it has used, which is somewhat less.
    """
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks = int(fields[19])  # field 22, starttime; the name before it may hold blanks
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.process_time()
