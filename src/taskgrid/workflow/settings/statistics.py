"""Statistics of data: something that merge methods need beside weights."""

from __future__ import annotations

from typing import Literal

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.plugins.cards import plugin_options, statistic_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of


def labels(experiment: Experiment, per: Literal["task", "base"]) -> list[str]:
    """Return the labels of the statistics of experts, one per task, or of those of the base."""
    names = {label: experiment.statistic(label).name for label in experiment.statistics}
    return [label for label, name in names.items() if statistic_card(name).per == per]


def files(
    experiment: Experiment, *, model: str, mode: str, seed: str, label: str, task: str
) -> Files:
    """Return what a statistic of an expert is computed from."""
    kinds = ("card", "expert", "expert_manifest", *_shown(experiment, label))
    return files_of(experiment, kinds, [task], model=model, mode=mode, seed=seed)


def base_files(experiment: Experiment, *, model: str, label: str) -> Files:
    """Return what a statistic of the base is computed from."""
    kinds, tasks = ("card", "base", *_shown(experiment, label)), experiment.tasks_seen(label)
    return files_of(experiment, kinds, tasks, model=model, mode="", seed="")


def statistic(
    experiment: Experiment, *, model: str, mode: str, seed: str, label: str, task: str
) -> str:
    """Return the settings of a statistic of an expert; model and mode are in the expert's manifest."""
    return _settings(experiment, label, int(seed))


def base_statistic(experiment: Experiment, *, model: str, label: str) -> str:
    """Return the settings of a statistic of the base, which has no seed of its own."""
    return _settings(experiment, label, 0)


def modules(experiment: Experiment, label: str) -> list[str]:
    """Return the plug-in that computes."""
    return [plugins.module_of("statistic", experiment.statistic(label).name)]


def _settings(experiment: Experiment, label: str, seed: int) -> str:
    spec = experiment.statistic(label)
    options = dict(plugin_options("statistic", spec.name, spec.options))
    return canonical_json({"statistic": spec.name, "options": options, "seed": seed})


def _shown(experiment: Experiment, label: str) -> tuple[str, ...]:
    head = statistic_card(experiment.statistic(label).name).head
    return ("split", "images", *(("head", "head_manifest") if head else ()))
