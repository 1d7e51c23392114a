"""Tables: the grid, what studies chose of it, and the literature's numbers beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any

from taskgrid.config import Experiment
from taskgrid.config.experiment import Run
from taskgrid.lattice.subsets import subset_of_number
from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import canonical_json, digest_file
from taskgrid.workflow import paths
from taskgrid.workflow.settings import merge, statistics


def grid(experiment: Experiment) -> str:
    """Return the settings of the grid's tables."""
    published = _published(experiment) if experiment.config.published else {}
    return canonical_json({**summary(experiment), **published})


def summary(experiment: Experiment) -> dict[str, Any]:
    """Return what a summary is made with: its tasks, and the size of the models.

    A control task has no expert, and no merge is its own: it has no column in the summary.
    """
    return {
        "tasks": experiment.trained,
        "towers": {
            model: [experiment.parameters(model), experiment.features(model)]
            for model in experiment.models
        },
    }


def costs(experiment: Experiment) -> list[dict[str, Any]]:
    """Return every method of every run with the files that say how long its merges took."""
    return [
        _cost(experiment, run, method)
        for run in experiment.runs
        for method in experiment.methods_of(run.mode)
    ]


def cost_files(experiment: Experiment) -> list[str]:
    """Return all these files."""
    return sorted({file for part in costs(experiment) for file in _files(part)})


def cost_listing(experiment: Experiment, files: Sequence[str]) -> str:
    """Return ``costs`` for the script, with files where Snakemake has them.

    Args:
        experiment: the experiment.
        files: what ``cost_files`` names, where Snakemake has it.
    """
    moved = dict(zip(cost_files(experiment), files, strict=True))
    return canonical_json(
        {
            "costs": [
                {
                    **part,
                    "blocks": [moved[file] for file in part["blocks"]],
                    "learned": {name: moved[file] for name, file in part["learned"].items()},
                    "statistics": {
                        task: [moved[file] for file in found]
                        for task, found in part["statistics"].items()
                    },
                }
                for part in costs(experiment)
            ]
        }
    )


def _files(part: dict[str, Any]) -> Iterator[str]:
    yield from part["blocks"]
    yield from part["learned"].values()
    for found in part["statistics"].values():
        yield from found


def _cost(experiment: Experiment, run: Run, method: str) -> dict[str, Any]:
    name = experiment.method(method).name
    labels = {"model": run.model, "mode": run.mode, "seed": run.seed}
    at = {**labels, "method": method}
    learned: dict[str, str] = {}
    if experiment.learns(method):
        learned = {
            one: paths.LEARNED_TIMING.format(**at, subset=one) for one in experiment.subsets(method)
        }
    trained = {**labels, "mode": experiment.experts_of(run.mode)}
    needs = experiment.needs(method).values()
    of_base = [one for one in needs if one in statistics.labels(experiment, "base")]
    own = [one for one in needs if one not in of_base]
    # Of a task that is in no subset, nobody makes a statistic.
    merged = subset_of_number(reduce(or_, experiment.numbers_of(method), 0), experiment.trained)
    return {
        "labels": labels,
        "method": name,
        "options": merge.options(experiment, method),
        "blocks": [
            paths.BLOCK_TIMING.format(**at, block=one.label) for one in experiment.blocks(method)
        ],
        "learned": learned,
        "statistics": {
            **{
                task: [
                    paths.STATISTIC_TIMING.format(**trained, label=one, task=task) for one in own
                ]
                for task in (merged if own else ())
            },
            "": [paths.BASE_STATISTIC_TIMING.format(model=run.model, label=one) for one in of_base],
        },
    }


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
