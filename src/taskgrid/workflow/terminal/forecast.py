"""What a run will take and why, before it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskgrid.config import Experiment
from taskgrid.workflow.terminal.changes import Present, why
from taskgrid.workflow.terminal.jobs import STAGES, Job
from taskgrid.workflow.terminal.points import changes_of
from taskgrid.workflow.terminal.times import Machine, Times, left, spoken

_EXPERTS = ("finetune", "import", "transport")
_REASONS = 4


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        jobs: the jobs.
        seconds: key of a job -> the seconds that it takes, where they are known.
        points: new points, at most.
        reasons: why jobs run.
        machine: what they run on.
    """

    jobs: tuple[Job, ...]
    seconds: Mapping[str, float]
    points: int
    reasons: tuple[str, ...]
    machine: Machine

    @property
    def unknown(self) -> int:
        """How many jobs take nobody knows how long."""
        return len(self.jobs) - len(self.seconds)

    @property
    def experts(self) -> int:
        """How many experts are made."""
        return sum(job.kind in _EXPERTS for job in self.jobs)

    @property
    def total(self) -> float:
        """Seconds until all is done, without the jobs of which nothing is known."""
        known = [(job, self.seconds[job.key]) for job in self.jobs if job.key in self.seconds]
        return left(known, self.machine)

    @property
    def duration(self) -> str:
        """How long it takes, as a person says it."""
        if not self.seconds:
            return "for a time that is not known yet"
        more = f" and {_some(self.unknown, 'job')} never timed yet" if self.unknown else ""
        return f"about {spoken(self.total)} on {self.machine.place}{more}"

    def __str__(self) -> str:
        if not self.jobs:
            return "everything is up to date"
        made = [(self.experts, "new expert"), (self.points, "new point")]
        what = " and ".join(_some(count, word) for count, word in made if count)
        jobs = _some(len(self.jobs), "job")
        lead = f"{what} in {jobs}" if what else jobs
        return f"{lead}, {self.duration}, because {_clauses(self.reasons)}"

    def stages(self) -> Iterator[str]:
        """Yield a line for each stage of the flow: its jobs, and the work in them."""
        for stage in STAGES:
            jobs = [job for job in self.jobs if job.stage == stage]
            if jobs:
                counts = Counter(job.rule for job in jobs)
                work = sum(self.seconds.get(job.key, 0.0) for job in jobs)
                named = ", ".join(f"{rule} {count}" for rule, count in counts.items())
                yield f"  {stage:9} {named}, {spoken(work)} of work"


def foresee(
    experiment: Experiment, jobs: Sequence[Job], machine: Machine, folder: Path = Path()
) -> Forecast:
    """Say what some jobs will take.

    Args:
        experiment: the experiment.
        jobs: the jobs.
        machine: what they run on.
        folder: the working folder.
    """
    times, changes = Times.look(experiment, folder), changes_of(experiment, jobs, folder)
    seconds = {}
    for job in jobs:
        change = changes.get(job.block) if job.rule == "eval" else None
        found = times.seconds(experiment, job, change)
        if found is not None:
            seconds[job.key] = found
    return Forecast(
        jobs=tuple(jobs),
        seconds=seconds,
        points=sum(len(change.new) for change in changes.values()),
        reasons=why(jobs, changes, Present.look(folder)),
        machine=machine,
    )


def _clauses(reasons: Sequence[str]) -> str:
    """Return clauses as one, as many as a person reads."""
    more = [f"{len(reasons) - _REASONS} more"] if len(reasons) > _REASONS else []
    return "; ".join([*reasons[:_REASONS], *more])


def _some(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
