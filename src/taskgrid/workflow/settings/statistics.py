"""Statistics of data: something that merge methods need beside weights."""

from __future__ import annotations

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.plugins.cards import plugin_options, statistic_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of


def files(
    experiment: Experiment, *, model: str, mode: str, seed: str, label: str, task: str
) -> Files:
    """Return what a statistic is computed from."""
    kinds = ["card", "expert", "expert_manifest", "split", "images"]
    if statistic_card(experiment.statistic(label).name).head:
        kinds += ["head", "head_manifest"]
    return files_of(experiment, kinds, [task], model=model, mode=mode, seed=seed)


def statistic(
    experiment: Experiment, *, model: str, mode: str, seed: str, label: str, task: str
) -> str:
    """Return the settings of a statistic; model and mode are in the expert's manifest."""
    spec = experiment.statistic(label)
    return canonical_json(
        {
            "task": task,
            "statistic": spec.name,
            "options": dict(plugin_options("statistic", spec.name, spec.options)),
            "seed": int(seed),
        }
    )


def modules(experiment: Experiment, label: str) -> list[str]:
    """Return the plug-in that computes."""
    return [plugins.module_of("statistic", experiment.statistic(label).name)]
