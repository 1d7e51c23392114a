"""Fine-tuning: one expert per task, mode and seed."""

from __future__ import annotations

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.errors import ConfigError
from taskgrid.plugins.cards import mode_card, plugin_options
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of


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


def modes(experiment: Experiment, *, factors: bool) -> list[str]:
    """Return the modes that keep factors beside their experts, or those that do not."""
    return [m for m in experiment.modes if mode_card(experiment.mode(m).name).factors == factors]


def others(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> Files:
    """Return what a mode reads of the other tasks: nothing, unless its card asks for it.

    Raises:
        ConfigError: if it asks for statistics. Those that the workflow makes are of experts, and experts
            of a mode that waits for each other's would never begin.
    """
    asked = mode_card(experiment.mode(mode).name).others
    statistics = [name for name in asked if name != "images"]
    if statistics:
        raise ConfigError(
            f"fine-tuning mode {mode!r} reads {' and '.join(statistics)} of the other tasks, and a workflow "
            "brings their images alone; call taskgrid.finetuning.loop.finetune with statistics instead"
        )
    tasks = [other for other in experiment.tasks if asked and other != task]
    kinds = ("dataset", "split", "images", "originals")
    return files_of(experiment, kinds, tasks, model=model, mode=mode, seed=seed)


def modules(experiment: Experiment, mode: str) -> list[str]:
    """Return the plug-in that says what is trained."""
    return [plugins.module_of("mode", experiment.mode(mode).name)]
