"""Ready-made experts: where they come from, and how they are checked."""

from __future__ import annotations

from pathlib import Path

from taskgrid.config import Experiment
from taskgrid.provenance.digests import canonical_json
from taskgrid.remote.cache import is_repository
from taskgrid.store.index import read_index
from taskgrid.workflow import paths
from taskgrid.workflow.settings import finetune, transport


def files(experiment: Experiment, mode: str, task: str) -> list[str]:
    """Return the files of a ready-made expert if they are here; what lies on the hub is no input."""
    place = experiment.imported(mode).place(task)
    if is_repository(place):
        return []
    path = Path(place).expanduser()
    shards = read_index(path).files if place.endswith(".index.json") and path.is_file() else ()
    return [str(path), *map(str, shards)]


def imported(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> str:
    """Return the settings of an import."""
    spec = experiment.imported(mode)
    return canonical_json(
        {
            "model": model,
            "task": task,
            "mode": mode,
            "seed": int(seed),
            "format": spec.format,
            "source": spec.place(task),
            "file": spec.file_of(task),
            "revision": spec.revision_of(task),
        }
    )


def verification(experiment: Experiment, mode: str, task: str) -> str:
    """Return the settings of putting an expert to its own task."""
    check = experiment.imported(mode).check
    return canonical_json(
        {
            "task": task,
            "expected": check.expected.get(task),
            "tolerance": check.tolerance,
            "batch_size": experiment.config.evaluation.batch_size,
            # Published numbers are of fp32, and nothing is proven of a lower precision yet.
            "precision": "fp32",
        }
    )


def verified(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> list[str]:
    """Return what must be known of an expert before its task vector is taken.

    Nothing of one that was trained here, nor of one of another base: whether that does its task is asked.
    """
    if mode not in experiment.imports:
        return []
    return [paths.VERIFIED.format(model=model, mode=mode, seed=seed, task=task)]


def record(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> str:
    """Return the settings that an expert was made with, wherever it comes from."""
    made = finetune.expert
    if mode in experiment.imports:
        made = imported
    elif mode in experiment.transports:
        made = transport.expert
    return made(experiment, model=model, mode=mode, seed=seed, task=task)
