"""Data: downloads, decoded images, splits."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.data.published.reading import read_description
from taskgrid.data.sources.seam import TaskData
from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import canonical_json, digest_file
from taskgrid.provenance.listing import fingerprint
from taskgrid.workflow import paths


def published(experiment: Experiment) -> list[str]:
    """Return the names of the tasks whose data are published sets."""
    return [name for name in experiment.tasks if experiment.task(name).source == "published"]


def download(experiment: Experiment, *, task: str) -> str:
    """Return the settings of a download: the task as configured."""
    return canonical_json({"task": _data(experiment, task)})


def downloaded(experiment: Experiment, task: str) -> list[str]:
    """Return what the download of a published task's data brought; other tasks have none."""
    published = experiment.task(task).source == "published"
    return [paths.DOWNLOAD.format(task=task)] if published else []


def dataset(experiment: Experiment, *, pixels: str, task: str) -> str:
    """Return the settings of decoding a task's images."""
    known = _data(experiment, task)
    if manifest := downloaded(experiment, task):
        known["options"] = {**known["options"], "download": manifest[0]}
    return canonical_json(
        {
            "task": known,
            "image_size": int(pixels.removesuffix("px")),
            "interpolation": "bicubic",
            "keep": _originals(experiment, task),
        }
    )


def _data(experiment: Experiment, task: str) -> dict[str, Any]:
    """Return what a task's images depend on; how it is trained, or whether, is none of it."""
    spec = experiment.task(task)
    known = spec.model_dump(include={field.name for field in fields(TaskData)})
    # Images that stand in two splits are decoded for both; the split then drops those of train.
    return known if spec.duplicates == "refuse" else {**known, "allow_overlap": True}


def _originals(experiment: Experiment, task: str) -> str:
    """Say which training images are kept as they were, for random crops: built-in ones are square."""
    if not experiment.modes:
        return "none"
    return "all" if experiment.task(task).source == "published" else "oblong"


def fingerprints(experiment: Experiment, task: str) -> dict[str, str]:
    """Return digests of the files that a task is made from and that no rule makes."""
    spec = experiment.task(task)
    found = {path: fingerprint(path) for path in experiment.files_of(task)}
    if spec.source == "published":
        # What the project itself says of the data set: class names, prompts, a split.
        names = [f"tasks/{spec.dataset}.yaml"]
        if split := read_description(spec.dataset).split:
            names.append(f"splits/{split}.json")
        found |= {name: digest_file(resource_path(name)) for name in names}
    return found


def modules(experiment: Experiment, task: str) -> list[str]:
    """Return the plug-ins that make a task's images."""
    spec = experiment.task(task)
    found = [plugins.module_of("source", spec.source)]
    if spec.source == "builtin":
        found.append(plugins.module_of("builtin", spec.name))
    if spec.source == "published" and spec.options["layout"] == "original":
        reader = read_description(spec.dataset).original.reader
        found.append(plugins.module_of("layout", reader))
    return found


def split(experiment: Experiment, task: str) -> str:
    """Return the settings of a split."""
    spec = experiment.task(task)
    return canonical_json(
        {
            "task": task,
            "allow_overlap": spec.allow_overlap,
            **({"drop_duplicates": True} if spec.duplicates == "drop_from_train" else {}),
            **experiment.config.split.model_dump(),
        }
    )
