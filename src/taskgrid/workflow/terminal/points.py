"""Which points of a block are new: what the configuration asks for, less what the block's plan holds."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from taskgrid.config import Experiment
from taskgrid.errors import ArtifactError
from taskgrid.lattice.subsets import parse_subset
from taskgrid.store.atomic import read_json
from taskgrid.workflow import paths
from taskgrid.workflow.settings import merge
from taskgrid.workflow.terminal.jobs import Job

_FILES = re.compile(r"(?:Updated input files|Input files updated by another job): ([^;]*)")

_ANEW = ("'taskgrid.", "Forced execution", "results/models/")
"""In the reason of a plan: code, or the base, is another one."""

Point = tuple[str, str]
"""The name of a subset, and a point of it as text."""


@dataclass(frozen=True)
class Sweeps:
    """The sweeps of a block, as far as they say which rows there are.

    Attributes:
        lambdas: the coefficients of every subset.
        named: subset -> points of its own.
        subsets: names of the subsets.
        studies: labels of the studies that ask.
        rest: method, options and precision; where these differ no row is the same.
    """

    lambdas: tuple[str, ...]
    named: Mapping[str, tuple[str, ...]]
    subsets: tuple[str, ...]
    studies: tuple[str, ...]
    rest: Mapping[str, Any]

    @property
    def points(self) -> frozenset[Point]:
        """Every point of every subset."""
        return frozenset(
            (subset, point)
            for subset in self.subsets
            for point in {*self.lambdas, *self.named.get(subset, ())}
        )

    @classmethod
    def asked(cls, settings: Mapping[str, Any]) -> Sweeps:
        """Return what the settings of a plan ask for."""
        rest = {
            "method": settings["method"],
            "options": settings["options"],
            "precision": settings["precision"],
        }
        return cls._of(settings, rest)

    @classmethod
    def planned(cls, plan: Mapping[str, Any]) -> Sweeps:
        """Return what a plan holds."""
        rest = {
            "method": plan["method"]["name"],
            "options": plan["method"]["options"],
            "precision": plan["setting"]["precision"],
        }
        return cls._of(plan, rest)

    @classmethod
    def _of(cls, value: Mapping[str, Any], rest: Mapping[str, Any]) -> Sweeps:
        return cls(
            tuple(value["lambdas"]),
            {subset: tuple(points) for subset, points in value["points"].items()},
            tuple(value["subsets"]),
            tuple(study["label"] for study in value["studies"]),
            rest,
        )


@dataclass(frozen=True)
class BlockChange:
    """A block that is to be evaluated: what is asked of it now, and what was before, if it was.

    Attributes:
        now: what is asked.
        before: what its plan holds.
        touched: words of the reason: tasks and subsets whose files are new.
        anew: whether all of it is measured again, whatever the plan says.
    """

    now: Sweeps
    before: Sweeps | None
    touched: Collection[str] = ()
    anew: bool = False

    @cached_property
    def new(self) -> frozenset[Point]:
        """Points that are new, at most: a row that was measured before is found in the store."""
        now, before = self.now, self.before
        if before is None or self.anew or now.rest != before.rest:
            return now.points
        changed = {name for name in now.subsets if self._is_touched(name)}
        return frozenset(
            point for point in now.points if point[0] in changed or point not in before.points
        )

    def _is_touched(self, subset: str) -> bool:
        return subset in self.touched or not {*parse_subset(subset)}.isdisjoint(self.touched)


def changes_of(
    experiment: Experiment, jobs: Iterable[Job], folder: Path = Path()
) -> dict[tuple[str, ...], BlockChange]:
    """Return the blocks that are to be evaluated.

    Args:
        experiment: the experiment.
        jobs: the jobs that are to run.
        folder: the working folder.
    """
    jobs = list(jobs)
    plans = {job.block: job for job in jobs if job.rule == "merge"}
    return {
        job.block: _change(experiment, job, plans.get(job.block), folder)
        for job in jobs
        if job.rule == "eval"
    }


def _change(experiment: Experiment, job: Job, plan: Job | None, folder: Path) -> BlockChange:
    now = Sweeps.asked(json.loads(merge.plan(experiment, **job.labels)))
    before = read_plan(folder / paths.BLOCK_PLAN.format(**job.labels))
    if plan is None:
        # The plan stands, and its rows are made all the same.
        return BlockChange(now, before, anew=True)
    anew = any(word in plan.reason for word in _ANEW)
    return BlockChange(now, before, words_of(plan.reason), anew=anew)


def read_plan(path: Path) -> Sweeps | None:
    """Return what a plan holds; nothing where there is none, or none that can be read."""
    try:
        return Sweeps.planned(read_json(path)) if path.exists() else None
    except (ArtifactError, KeyError, TypeError):
        return None


def words_of(reason: str) -> frozenset[str]:
    """Return the folders and names of the files that are new, which are those of tasks and subsets."""
    paths = (
        PurePosixPath(path) for listed in _FILES.findall(reason) for path in listed.split(", ")
    )
    return frozenset(part for path in paths for part in (*path.parts[:-1], path.name.split(".")[0]))


def images_of(
    change: BlockChange, counts: Mapping[str, tuple[int, int]], outside: bool, tasks: Iterable[str]
) -> int:
    """Return how many images have to pass for the new points of a block, at most.

    Args:
        change: the block.
        counts: task -> images of validation and of test.
        outside: whether merges are measured on tasks outside their subset.
        tasks: all tasks.
    """
    new = change.new
    fresh: dict[str, int] = {}
    for subset, _ in new:
        fresh[subset] = fresh.get(subset, 0) + 1
    total = 0
    for subset, count in fresh.items():
        measured = tuple(tasks) if outside else parse_subset(subset)
        total += sum(count * counts[task][0] for task in measured)
        whole = len({*change.now.lambdas, *change.now.named.get(subset, ())})
        # The chosen point is measured on test; one more lambda rarely changes which it is.
        if count == whole:
            total += sum(counts[task][1] for task in measured)
    return total
