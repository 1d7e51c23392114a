"""The explorer: what its page must know that tables do not say, and what exact sliders are made of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.config.experiment import Run
from taskgrid.plugins.cards import merger_card
from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import canonical_json, digest_file
from taskgrid.workflow import paths
from taskgrid.workflow.runs import run_files, tangent_runs
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


def exact_runs(experiment: Experiment) -> list[Run]:
    """Return the runs whose sums of task vectors are known at any coefficients."""
    return [
        run
        for run in tangent_runs(experiment)
        if any(_method(experiment, label)["sum"] for label in experiment.methods_of(run.mode))
    ]


def margin_files(experiment: Experiment) -> list[str]:
    """Return the file of each of these runs."""
    return run_files(paths.MARGINS, exact_runs(experiment))


def listing(experiment: Experiment, files: Sequence[str]) -> str:
    """Return the margins of each run that has them.

    Args:
        experiment: the experiment.
        files: their files, where Snakemake has them.
    """
    found = zip(exact_runs(experiment), files, strict=True)
    return canonical_json({"margins": [{**asdict(run), "path": file} for run, file in found]})


def margins(experiment: Experiment, *, model: str, mode: str, seed: str) -> str:
    """Return the settings of a run's margins: between which coefficients they are to hold."""
    setting = {"model": model, "mode": mode, "seed": int(seed)}
    merged = experiment.methods_of(mode)
    scales = [float(text) for label in merged for text in experiment.lambdas(label)]
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
