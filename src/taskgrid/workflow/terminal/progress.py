"""How far a run is, in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from taskgrid.workflow.terminal.forecast import Forecast
from taskgrid.workflow.terminal.jobs import Job
from taskgrid.workflow.terminal.times import left, spoken

_UNKNOWN = 10.0
"""Seconds that a job counts for until one of its kind is done."""
_DOUBT = 30.0
"""Seconds of work after which the pace of this run counts as much as what was thought before."""


@dataclass
class _Kind:
    """What jobs of a kind took in this run."""

    count: int = 0
    seconds: float = 0.0


class RunProgress:
    """What is done of a run, what runs, and how long it takes yet.

    Args:
        forecast: what was thought of it.
        clock: gives seconds.
    """

    def __init__(self, forecast: Forecast, clock: Callable[[], float] = time.monotonic) -> None:
        self._forecast, self._clock = forecast, clock
        self._waiting = {job.key: job for job in forecast.jobs}
        self._running: dict[str, tuple[Job, float]] = {}
        self._kinds: dict[str, _Kind] = {}
        self._thought = self._took = 0.0
        self.started = clock()
        self._failed: set[str] = set()
        self.done = 0

    @property
    def failed(self) -> int:
        """Jobs that failed, and are not tried again."""
        return len(self._failed)

    @property
    def total(self) -> int:
        """Jobs of the run."""
        return self.done + self.failed + len(self._running) + len(self._waiting)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self.started

    def start(self, job: Job) -> None:
        """Note that a job runs."""
        self._waiting.pop(job.key, None)
        self._failed.discard(job.key)
        self._running[job.key] = (job, self._clock())

    def finish(self, job: Job) -> None:
        """Note that a job is done."""
        _, since = self._running.pop(job.key, (job, self._clock()))
        took = self._clock() - since
        kind = self._kinds.setdefault(job.kind, _Kind())
        kind.count, kind.seconds = kind.count + 1, kind.seconds + took
        if job.key in self._forecast.seconds:
            self._thought += self._forecast.seconds[job.key]
            self._took += took
        self.done += 1

    def fail(self, job: Job) -> None:
        """Note that a job failed."""
        self._running.pop(job.key, None)
        self._failed.add(job.key)

    @property
    def left(self) -> float:
        """Seconds until the end, as it looks now."""
        now = self._clock()
        waiting = [(job, self._expected(job)) for job in self._waiting.values()]
        running = [
            # What takes longer than was thought, takes a little longer yet.
            (job, max(expected - (now - since), 0.05 * expected))
            for job, since in self._running.values()
            if (expected := self._expected(job))
        ]
        return left([*running, *waiting], self._forecast.machine)

    @property
    def fraction(self) -> float:
        """Part of the run that is over, between 0 and 1."""
        if not self._running and not self._waiting:
            return 1.0
        elapsed = self.elapsed
        return elapsed / max(elapsed + self.left, 1e-9)

    def _expected(self, job: Job) -> float:
        if job.key in self._forecast.seconds:
            pace = (self._took + _DOUBT) / (self._thought + _DOUBT)
            return pace * self._forecast.seconds[job.key]
        kind = self._kinds.get(job.kind)
        return kind.seconds / kind.count if kind else _UNKNOWN

    def __str__(self) -> str:
        parts = [f"{self.done} of {self.total} jobs"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self._running or self._waiting:
            parts.append(f"{spoken(self.left)} left")
        titles = [job.title for job, _ in self._running.values()]
        if titles:
            # The one that runs longest is what is waited for.
            more = f" (and {len(titles) - 1} more)" if len(titles) > 1 else ""
            parts.append(f"{titles[0]}{more}")
        return " · ".join(parts)
