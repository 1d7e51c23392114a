"""How long jobs take: by the benchmarks of those that ran, else by what the embedded default took."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from taskgrid.config import Experiment
from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.store.atomic import read_json
from taskgrid.workflow import cost, paths
from taskgrid.workflow.terminal.jobs import BENCHMARKS, ON_DEVICE, STAGES, Job, kind_of
from taskgrid.workflow.terminal.points import BlockChange, images_of

KNOWN: Mapping[str, float] = {
    **{"dataset": 2.6, "split": 2.5, "base": 6.0, "head": 5.6, "taskvector": 2.2, "conflict": 2.9},
    **{"conflicts": 2.4, "merge": 0.5, "reference": 20.0, "record": 0.6, "grid": 0.8, "study": 0.5},
    **{"figure": 2.5, "explorer": 3.0, "report": 2.0, "registry": 9.6},
}
"""Seconds of a job of the embedded default, one thread of two cores (November 2026)."""

_STEP = 0.11
"""Seconds of a step of its recipe."""
_IMAGE = 0.0005
"""Seconds of an image through its tower, in an evaluation."""
_OPENING = 6.0
"""Seconds until the first of them."""
_COUNTS = (200, 500)
"""Images of validation and test of its tasks."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Machine:
    """What jobs run on.

    Attributes:
        jobs: how many run at once.
        gpus: how many of these have a GPU; 0 where none asks for one.
        place: as a person would say it.
    """

    jobs: int
    gpus: int
    place: str

    def at_once(self, kind: str) -> int:
        """Return how many jobs of a kind run at once."""
        return max(1, min(self.jobs, self.gpus) if self.gpus and kind in ON_DEVICE else self.jobs)


@dataclass(frozen=True)
class Evaluations:
    """What evaluations took, by block.

    Attributes:
        blocks: block -> images, the seconds that they took, and the seconds of the whole job.
    """

    blocks: Mapping[tuple[str, ...], tuple[int, float, float]]

    def seconds(self, block: tuple[str, ...], images: int) -> float | None:
        """Return how long an evaluation takes, by those that are the most like it.

        Args:
            block: model, mode, seed, method and block.
            images: that have to pass.
        """
        alike = _nearest(block, self.blocks)
        measured = sum(seconds for _, seconds, _ in alike)
        passed = sum(count for count, _, _ in alike)
        if not passed:
            return None
        opening = sum(whole - seconds for _, seconds, whole in alike) / len(alike)
        return max(opening, 0.0) + images * measured / passed


@dataclass(frozen=True)
class Times:
    """What is known of the time that jobs take.

    Attributes:
        benchmarks: kind -> path of a benchmark without its kind -> seconds.
        evaluations: what evaluations took.
        counts: task -> images of validation and test.
    """

    benchmarks: Mapping[str, Mapping[tuple[str, ...], float]]
    evaluations: Evaluations
    counts: Mapping[str, tuple[int, int]]

    @classmethod
    def look(cls, experiment: Experiment, folder: Path = Path()) -> Times:
        """Read the benchmarks, the times of evaluations and the sizes of splits.

        Args:
            experiment: the experiment.
            folder: the working folder.
        """
        benchmarks = read_benchmarks(folder)
        return cls(
            benchmarks,
            _evaluations(folder, benchmarks.get("eval", {})),
            _counts(experiment, folder),
        )

    def seconds(
        self, experiment: Experiment, job: Job, change: BlockChange | None = None
    ) -> float | None:
        """Return how long a job takes; None where nothing is known.

        Args:
            experiment: the experiment.
            job: the job.
            change: of an evaluation, its block.
        """
        default = cost.is_small(experiment)
        if change is not None:
            outside = experiment.config.evaluation.outside
            images = images_of(change, self.counts, outside, experiment.tasks)
            found = self.evaluations.seconds(job.block, images)
            if found is not None or not default:
                return found
            return _OPENING + images * _IMAGE
        steps = _steps(experiment, job)
        alike = _nearest(_parts(job.benchmark or ""), self.benchmarks.get(job.kind, {}))
        if alike:
            return sum(alike) / len(alike) * _more_steps(job, steps)
        if not default:
            return None
        return _OPENING + steps * _STEP if steps else KNOWN.get(job.kind)


def read_benchmarks(folder: Path = Path()) -> dict[str, dict[tuple[str, ...], float]]:
    """Return what jobs took: kind -> path -> seconds.

    Args:
        folder: the working folder.
    """
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for path in sorted((folder / BENCHMARKS).rglob("*.tsv")):
        name = path.relative_to(folder).as_posix()
        # A job that runs at this moment writes its own.
        with suppress(OSError, KeyError, ValueError, csv.Error), path.open(newline="") as stream:
            seconds = [float(row["s"]) for row in csv.DictReader(stream, delimiter="\t")]
            if seconds:
                found.setdefault(kind_of(name), {})[_parts(name)] = sum(seconds) / len(seconds)
    return found


def left(jobs: Iterable[tuple[Job, float]], machine: Machine) -> float:
    """Return the seconds until some jobs are done.

    The stages of the flow come one after the other; within one, jobs run side by side, and none is done
    before its longest.

    Args:
        jobs: each with the seconds that it still takes.
        machine: what they run on.
    """
    stages: dict[str, list[tuple[float, float]]] = {stage: [] for stage in STAGES}
    for job, seconds in jobs:
        stages[job.stage].append((seconds, seconds / machine.at_once(job.kind)))
    return sum(
        max(max(alone for alone, _ in found), sum(shared for _, shared in found))
        for found in stages.values()
        if found
    )


def spoken(seconds: float) -> str:
    """Return a time as a person says it: ``40 s``, ``3 min``, ``2 h 10 min``, ``3 days``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, rest = divmod(round(minutes / 10) * 10, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{round(minutes / 60 / 24)} days"


def _parts(benchmark: str) -> tuple[str, ...]:
    return PurePosixPath(benchmark.removesuffix(".tsv")).parts[3:]


def _nearest(place: tuple[str, ...], known: Mapping[tuple[str, ...], _Value]) -> list[_Value]:
    """Return the values of those known places that agree with a place in the most parts."""
    alike = {
        other: sum(own == its for own, its in zip(place, other, strict=True))
        for other in known
        if len(other) == len(place)
    }
    most = max(alike.values(), default=0)
    return [known[other] for other, count in alike.items() if count == most]


def _evaluations(folder: Path, benchmarks: Mapping[tuple[str, ...], float]) -> Evaluations:
    blocks = {}
    for block, whole in benchmarks.items():
        labels = dict(zip(("model", "mode", "seed", "method", "block"), block, strict=False))
        with suppress(ArtifactError, KeyError, OSError):
            timing = read_json(folder / paths.BLOCK_TIMING.format(**labels))
            if timing["images"]:
                blocks[block] = (int(timing["images"]), float(timing["measured_seconds"]), whole)
    return Evaluations(blocks)


def _counts(experiment: Experiment, folder: Path) -> dict[str, tuple[int, int]]:
    found = dict.fromkeys(experiment.tasks, _COUNTS)
    pixels = experiment.pixels(experiment.models[0])
    for task in experiment.tasks:
        with suppress(ArtifactError, KeyError, OSError):
            counts = read_json(folder / paths.SPLIT.format(pixels=pixels, task=task))["counts"]
            found[task] = (int(counts["val"]), int(counts["test"]))
    return found


def _steps(experiment: Experiment, job: Job) -> int:
    """Return the steps of a training, as far as the recipe says; of other jobs none."""
    if job.kind != "finetune":
        return 0
    with suppress(ConfigError, KeyError):
        return int(experiment.recipe(job.labels["task"], job.labels["mode"])["steps"] or 0)
    return 0


def _more_steps(job: Job, steps: int) -> float:
    """Return how many times as many steps a training takes as the one that was timed."""
    before = re.search(r'before: .*?"steps":(\d+).* now: ', job.reason, re.S)
    return steps / int(before[1]) if before and steps else 1.0
