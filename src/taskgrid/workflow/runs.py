"""The runs of an experiment as rules collect them: files of every run, expert, block and lattice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from taskgrid.config import Experiment
from taskgrid.config.experiment import Run
from taskgrid.workflow import paths


def tangent_runs(experiment: Experiment) -> list[Run]:
    """Return the runs of tangent models, of which the exact best lambda is known."""
    return [run for run in experiment.runs if experiment.evaluation(run.mode) == "tangent"]


def plain_runs(experiment: Experiment) -> list[Run]:
    """Return the runs that are evaluated as they are."""
    return [run for run in experiment.runs if experiment.evaluation(run.mode) != "tangent"]


def proven_runs(experiment: Experiment) -> list[Run]:
    """Return the runs whose precision is proven against fp32 before anything is evaluated in it."""
    return [] if experiment.config.evaluation.precision == "fp32" else list(experiment.runs)


def merged_runs(experiment: Experiment) -> list[Run]:
    """Return the sets of experts that any method merges."""
    merged = {
        experiment.experts_of(run.mode)
        for run in experiment.runs
        if experiment.methods_of(run.mode)
    }
    return [run for run in experiment.expert_runs if run.mode in merged]


def experts(experiment: Experiment) -> list[dict[str, Any]]:
    """Return model, mode, seed and task of every expert."""
    return [
        {**asdict(run), "task": task}
        for run in experiment.expert_runs
        for task in experiment.trained
    ]


def lattices(experiment: Experiment) -> list[dict[str, Any]]:
    """Return model, mode, seed and method of every lattice on a budget.

    Tangent models need no budget: their whole lattice is exact. For a method that learns, every merge
    that is not evaluated would have to be learned all the same.
    """
    if experiment.config.lattice is None:
        return []
    return [
        {**asdict(run), "method": method}
        for run in plain_runs(experiment)
        for method in experiment.methods_of(run.mode)
        if not experiment.learns(method)
    ]


def run_files(pattern: str, runs: Iterable[Run]) -> list[str]:
    """Return a file per run."""
    return [pattern.format(**asdict(run)) for run in runs]


def labelled_files(pattern: str, labels: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a file per set of labels, such as `experts` and `lattices` give."""
    return [pattern.format(**label) for label in labels]


def block_files(experiment: Experiment, pattern: str, runs: Iterable[Run]) -> list[str]:
    """Return a file per block of the grid, of every method of some runs."""
    return [
        pattern.format(**asdict(run), method=method, block=block.label)
        for run in runs
        for method in experiment.methods_of(run.mode)
        for block in experiment.blocks(method)
    ]


def record_files(experiment: Experiment) -> list[str]:
    """Return all run records: of experts, then of blocks."""
    return [
        *labelled_files(paths.EXPERT_RECORD, experts(experiment)),
        *block_files(experiment, paths.BLOCK_RECORD, experiment.runs),
    ]
