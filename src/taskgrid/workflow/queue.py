"""Jobs that outlived the call of Snakemake that submitted them: what SLURM still has of a working folder."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_FORMAT = "%i|%T|%k|%Z"
# The executor plugin comments its jobs so; the allocation in which Snakemake itself runs has none.
_COMMENTS = ("rule_", "group_")
# Said, because a site or a user may have chosen others for what `squeue` shows.
_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING"
_NAMED = 5


@dataclass(frozen=True)
class Job:
    """A job in SLURM's queue: its number, its state, and what the plugin says it does."""

    number: str
    state: str
    comment: str

    def __str__(self) -> str:
        rule, _, wildcards = self.comment.partition("_wildcards_")
        return f"{self.number} ({rule.partition('_')[2]} {wildcards}".rstrip() + f", {self.state})"


def jobs_of(folder: Path) -> list[Job]:
    """Return the jobs that Snakemake submitted from a folder and that have not ended.

    Args:
        folder: a working folder of Snakemake.

    Returns:
        The jobs, whoever submitted them; none where SLURM does not answer.
    """
    command = ["squeue", "--noheader", f"--states={_STATES}", f"--format={_FORMAT}"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in listing.stdout.splitlines():
        number, state, comment, place = line.split("|", 3)
        if comment.startswith(_COMMENTS) and Path(place).resolve() == folder.resolve():
            found.append(Job(number, state, comment))
    return found


def refusal(jobs: list[Job]) -> str | None:
    """Say what to do of jobs that nobody waits for; nothing where there is none."""
    if not jobs:
        return None
    named = [str(job) for job in jobs[:_NAMED]]
    more = [f"{len(jobs) - _NAMED} more"] if len(jobs) > _NAMED else []
    numbers = " ".join(job.number for job in jobs)
    return (
        "SLURM still has jobs of a call of Snakemake that is gone from this folder: "
        f"{', '.join([*named, *more])}; cancel them (`scancel {numbers}`), and the same command goes on, "
        "trainings from their last checkpoint"
    )
