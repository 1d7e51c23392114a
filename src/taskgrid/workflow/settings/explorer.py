"""The explorer: what its page must know that tables do not say, and what exact sliders are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.plugins.cards import merger_card
from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import canonical_json, digest_file
from taskgrid.workflow.runs import tangent_runs
from taskgrid.workflow.settings import evaluate, merge

SUM = "task_arithmetic"
"""The method whose coefficients are those of the task vectors themselves."""


def page(experiment: Experiment, files: Iterable[str | Path]) -> str:
    """Return the settings of the page.

    Args:
        experiment: the experiment.
        files: the configuration files that the call of Snakemake named.
    """
    named = [os.path.relpath(file) for file in files]
    return canonical_json(
        {
            "tasks": experiment.tasks,
            "methods": [_method(experiment, label) for label in experiment.methods],
            "files": named,
            "assets": {
                file.name: digest_file(file) for file in sorted(resource_path("explorer").iterdir())
            },
        }
    )


def _method(experiment: Experiment, label: str) -> dict[str, Any]:
    name, options = experiment.method(label).name, merge.options(experiment, label)
    return {
        "label": label,
        "name": name,
        "options": options,
        "gives": merger_card(name).gives,
        "sum": name == SUM and not any(options.values()),
    }


def listing(experiment: Experiment, files: Sequence[str]) -> str:
    """Return the margins of each run of tangent models.

    Args:
        experiment: the experiment.
        files: their files, where Snakemake has them.
    """
    found = zip(tangent_runs(experiment), files, strict=True)
    return canonical_json({"margins": [{**asdict(run), "path": file} for run, file in found]})


def margins(experiment: Experiment, *, model: str, mode: str, seed: str) -> str:
    """Return the settings of a run's margins: between which coefficients they are to hold."""
    setting = {"model": model, "mode": mode, "seed": int(seed)}
    scales = [float(text) for label in experiment.methods for text in experiment.lambdas(label)]
    return canonical_json(
        {
            **setting,
            **evaluate.passing(experiment),
            "precision": experiment.config.evaluation.precision,
            "evaluation": experiment.evaluation(mode),
            "method": SUM,
            "tasks": experiment.tasks,
            "moving": experiment.trained,
            "low": min(0.0, *scales),
            "high": max(1.0, *scales),
        }
    )


def modules() -> list[str]:
    """Return the plug-in that adds task vectors up."""
    return [plugins.module_of("merger", SUM)]
