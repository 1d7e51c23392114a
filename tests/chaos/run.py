"""A run under fire: begun, hit, begun again, and judged when it has ended."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.prepared import Undisturbed, leftovers
from tests.workflow.conftest import Checkout

KINDS = ("job", "snakemake", "group")
MOST_KILLS = 5
MOST_STARTS = 12

_MARK = "TASKGRID_CHAOS"
"""A variable in the environment of all processes of a run, by which they are found however they hang."""


@dataclass
class Run:
    """A run under fire.

    Attributes:
        checkout: where it runs.
        mark: what its processes are found by.
        hits: what was hit.
        starts: calls of Snakemake.
        failed: calls that nobody hit and that ended badly all the same.
    """

    checkout: Checkout
    mark: str
    hits: list[str] = field(default_factory=list)
    starts: int = 0
    failed: int = 0

    @property
    def said(self) -> Path:
        """The file of all that its calls said."""
        return self.checkout / "said.txt"

    def survive(self, draw: random.Random, jobs: int) -> None:
        """Start it until it ends, killing up to five times; ``jobs`` is what it takes undisturbed.

        Moments are drawn in jobs that have begun, and a little later: whatever the machine's pace.
        """
        kills = draw.randint(1, MOST_KILLS)
        while self.starts < MOST_STARTS:
            before = len(self.hits)
            with self.begin() as call:
                while len(self.hits) < kills and self.comes_to(draw.randrange(jobs // 2), call):
                    if not _still_runs(call, draw.uniform(0, 2)):
                        break
                    kind = draw.choice(KINDS)
                    if self.hit(kind, call, draw) and kind != "job":
                        break
                code = call.wait()
            if code == 0:
                return
            self.failed += before == len(self.hits)
        raise SystemExit(f"a run does not end: see {self.said}")

    def comes_to(self, jobs: int, call: subprocess.Popen[str]) -> bool:
        """Wait until a call has begun so many more jobs; False if it ends before."""
        wanted = begun(self.said.read_text()) + jobs
        while begun(self.said.read_text()) < wanted:
            if not _still_runs(call, 0.02):
                return False
        return True

    @contextmanager
    def begin(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Begin a call in a process group of its own; what it says goes to ``said.txt``."""
        self.starts += 1
        os.environ[_MARK] = self.mark
        with self.said.open("a") as said:
            call = self.checkout.begin(*arguments, stdout=said, start_new_session=True)
            try:
                yield call
            finally:
                if call.poll() is None:
                    os.killpg(call.pid, signal.SIGKILL)
                    call.wait()

    def hit(self, kind: str, call: subprocess.Popen[str], draw: random.Random) -> bool:
        """Kill a job, Snakemake, or Snakemake with all its jobs; False where there is none."""
        with suppress(ProcessLookupError):
            if kind == "group":
                os.killpg(call.pid, signal.SIGKILL)
            elif kind == "snakemake":
                call.kill()
            else:
                while not (jobs := self.jobs()):
                    if not _still_runs(call, 0.02):
                        return False
                pid, kind = draw.choice(sorted(jobs.items()))
                os.kill(pid, signal.SIGKILL)
            self.hits.append(kind)
            return True
        return False

    def jobs(self) -> dict[int, str]:
        """Return the names of the scripts that are at work, by process."""
        found = {}
        for pid, words in _marked(self.mark).items():
            script = Path(words[1]) if len(words) > 1 else Path()
            if script.parent.name == "scripts":
                found[pid] = script.stem
        return found

    def settle(self) -> None:
        """Wait for what killed calls had begun; it goes on by itself."""
        while _marked(self.mark):
            time.sleep(0.05)

    def judge(self, expected: Undisturbed) -> list[str]:
        """Return what is not as it should be after the run has ended."""
        self.settle()
        found = expected.differences(self.checkout)
        found += ["a call that nobody hit failed"] * self.failed
        plan = self.checkout.snakemake("-n")
        if plan.code != 0 or plan.rules:
            found.append(f"a dry run finds {dict(plan.rules)}")
        found += [f"left {path.name}" for path in leftovers(self.checkout)]
        return found


def begun(said: str) -> int:
    """Return how many jobs a call began, by what it said."""
    return len(re.findall(r"^Job \d+: ", said, re.MULTILINE))


def _marked(mark: str) -> dict[int, list[str]]:
    """Return the words of the command of each living process of a run, by its number."""
    wanted, found = f"{_MARK}={mark}".encode(), {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                words = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")
                found[int(folder.name)] = words
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def _still_runs(call: subprocess.Popen[str], seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        call.wait(seconds)
    return call.returncode is None
