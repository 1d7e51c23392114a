"""Tables: the grid, what studies chose of it, and the literature's numbers beside it."""

from __future__ import annotations

from typing import Any

from taskgrid.config import Experiment
from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import canonical_json, digest_file


def grid(experiment: Experiment) -> str:
    """Return the settings of the grid's tables."""
    config = experiment.config
    # A control task has no expert, and no merge is its own: it has no column in the summary.
    known: dict[str, Any] = {
        "tasks": experiment.trained,
        "weights": {model: experiment.parameters(model) for model in experiment.models},
    }
    return canonical_json({**known, **(_published(experiment) if config.published else {})})


def _published(experiment: Experiment) -> dict[str, Any]:
    """Which published numbers are set beside the run's, and what the literature calls the run."""
    config = experiment.config
    numbers = ["index.json", *(f"{name}.csv" for name in config.published)]
    return {
        "published": config.published,
        "numbers": {name: digest_file(resource_path(f"published/{name}")) for name in numbers},
        "models": {
            model.name: {"architecture": model.architecture, "pretrained": model.pretrained}
            for model in config.models
        },
        "modes": {run.mode: _published_mode(experiment, run.mode) for run in experiment.runs},
        "datasets": {task: experiment.task(task).dataset for task in experiment.tasks},
    }


def _published_mode(experiment: Experiment, mode: str) -> str:
    """Ready-made experts are called by how they are evaluated."""
    if mode in experiment.modes:
        return experiment.mode(mode).name
    if mode in experiment.imports:
        return "linear" if experiment.evaluation(mode) == "tangent" else "standard"
    return mode
