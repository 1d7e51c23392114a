"""Fine-tuning: one expert per task, mode and seed."""

from __future__ import annotations

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.plugins.cards import plugin_options
from taskgrid.provenance.digests import canonical_json


def expert(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> str:
    """Return the settings of a fine-tuning."""
    spec = experiment.mode(mode)
    return canonical_json(
        {
            "model": model,
            "task": task,
            "mode": spec.name,
            "mode_label": mode,
            "mode_options": dict(plugin_options("mode", spec.name, spec.options)),
            "seed": int(seed),
            "recipe": experiment.recipe(task, mode),
        }
    )


def modules(experiment: Experiment, mode: str) -> list[str]:
    """Return the plug-in that says what is trained."""
    return [plugins.module_of("mode", experiment.mode(mode).name)]
