"""Export: one grid point as a CLIP that others load."""

from __future__ import annotations

from dataclasses import replace

from taskgrid.config import Experiment
from taskgrid.config.named import point_tasks
from taskgrid.errors import ConfigError
from taskgrid.plugins.cards import merger_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.settings import merge

KINDS = ("card", "base", "vector", "vector_manifest", "statistic", "statistic_manifest")
"""What any point is made of; what was learned is compared with all that a plan reads."""


def files(
    experiment: Experiment,
    *,
    model: str,
    mode: str,
    seed: str,
    method: str,
    subset: str,
    scale: str,
) -> Files:
    """Return what a point is made of.

    Raises:
        ConfigError: if a name does not exist, or the point is called otherwise in tables.
    """
    # First, because it says which of the names is wrong.
    text, task = _parted(scale)
    tasks = point_tasks(experiment, model, mode, seed, method, subset, text)
    _check_model(experiment.method(method).name, tasks, task)
    run = {"model": model, "mode": mode, "seed": seed}
    learned = merge.learned(experiment, [subset], **run, method=method)
    kinds = dict.fromkeys((*KINDS, *merge.KINDS)) if learned else KINDS
    labels = experiment.needs(method).values()
    return replace(files_of(experiment, kinds, tasks, **run, labels=labels), learned=learned)


def point(
    experiment: Experiment,
    *,
    model: str,
    mode: str,
    seed: str,
    method: str,
    subset: str,
    scale: str,
) -> str:
    """Return the settings of an export."""
    merger, base, (text, task) = experiment.method(method), experiment.model(model), _parted(scale)
    return canonical_json(
        {
            "architecture": base.architecture,
            "pretrained": base.pretrained,
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "method": merger.name,
            "options": merge.options(experiment, method),
            "subset": subset,
            "needs": experiment.needs(method),
            "point": text,
            "task": task,
            "evaluation": experiment.evaluation(mode),
            "max_bytes": experiment.config.export.max_mb << 20,
        }
    )


def _parted(name: str) -> tuple[str, str | None]:
    """Return the point that a file is named by, and of ``1.00@a`` the task whose model it is."""
    text, _, task = name.partition("@")
    return text, task or None


def _check_model(method: str, tasks: tuple[str, ...], task: str | None) -> None:
    """Refuse what is no model: of a method with a model for each task, one without a task."""
    gives = merger_card(method).gives
    if gives == "logits":
        raise ConfigError(f"merge method {method!r} merges logits: there is no model to export")
    if gives == "features":
        raise ConfigError(
            f"merge method {method!r} changes the features of each task, which no weights do: there is no "
            "model to export"
        )
    if gives == "per_task" and task not in tasks:
        raise ConfigError(
            f"merge method {method!r} gives a model for each task; name it behind the point, as in "
            f"1.00@{tasks[0]}.safetensors"
        )
    if gives == "model" and task is not None:
        raise ConfigError(f"merge method {method!r} gives one model; leave @{task} out")
