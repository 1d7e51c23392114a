"""Merging: the lambda-free work of a block of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from taskgrid.config import Experiment
from taskgrid.evaluation.plan.asking import StudyRef, ask
from taskgrid.lattice.subsets import parse_subset, subset_name
from taskgrid.plugins.cards import merger_modules, plugin_options
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow import paths
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.settings import studies

KINDS = ("card", "dataset", "split", "head_manifest", "vector_manifest", "statistic_manifest")
"""Manifests of all that a row depends on."""


@cache
def tasks(experiment: Experiment, method: str, block: str) -> tuple[str, ...]:
    """Return the tasks that a block is evaluated on: those that its studies measure, or all by config."""
    if experiment.config.evaluation.outside:
        return experiment.tasks
    subsets = [parse_subset(name) for name in experiment.subsets(method, experiment.block(block))]
    refs = [
        StudyRef(**studies.reference(experiment, label)) for label in studies.asking(experiment)
    ]
    asked = ask(refs, subsets, studies.field(experiment), lambda subset, measured: measured)
    needed = {task for one in asked for task in one.question.tasks}
    return tuple(sorted(needed.union(*subsets)))


# Rules ask for what is followed, then for what is settled, of one job after the other.
@lru_cache(maxsize=1)
def files(
    experiment: Experiment, *, model: str, mode: str, seed: str, method: str, block: str
) -> Files:
    """Return what a plan is made of."""
    labels = experiment.needs(method).values()
    found = files_of(
        experiment,
        KINDS,
        tasks(experiment, method, block),
        model=model,
        mode=mode,
        seed=seed,
        labels=labels,
    )
    subsets = experiment.subsets(method, experiment.block(block))
    more = learned(experiment, subsets, model=model, mode=mode, seed=seed, method=method)
    return replace(found, learned=more)


def learned(
    experiment: Experiment,
    subsets: Sequence[str],
    *,
    model: str,
    mode: str,
    seed: str,
    method: str,
) -> dict[str, str]:
    """Return the files of what a method learns for some subsets: none for one that learns nothing."""
    if not experiment.learns(method):
        return {}
    run = {"model": model, "mode": mode, "seed": seed, "method": method}
    return {subset: paths.LEARNED.format(**run, subset=subset) for subset in subsets}


def splits(
    experiment: Experiment, *, model: str, mode: str, seed: str, method: str, block: str
) -> Files:
    """Return the splits that a block was evaluated on; they are no matter of the method."""
    return files_of(
        experiment, ("split",), tasks(experiment, method, block), model=model, mode=mode, seed=seed
    )


def plan(
    experiment: Experiment, *, model: str, mode: str, seed: str, method: str, block: str
) -> str:
    """Return the settings of a block's plan."""
    spec, evaluation = experiment.method(method), experiment.config.evaluation
    return canonical_json(
        {
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "method": spec.name,
            "options": options(experiment, method),
            "needs": experiment.needs(method),
            "subsets": experiment.subsets(method, experiment.block(block)),
            "lambdas": experiment.lambdas(method),
            "points": points(experiment, method, block),
            "outside": evaluation.outside,
            "curves_on": evaluation.curves_on,
            "studies": [
                studies.reference(experiment, label) for label in studies.asking(experiment)
            ],
            "precision": evaluation.precision,
            "evaluation": experiment.evaluation(mode),
            **_curves(experiment),
        }
    )


def options(experiment: Experiment, method: str) -> dict[str, Any]:
    """Return a method's options with the defaults of its card, which is in no digest of code."""
    spec = experiment.method(method)
    return dict(plugin_options("merger", spec.name, spec.options))


def points(experiment: Experiment, method: str, block: str) -> dict[str, list[str]]:
    """Return the points with coefficients of their own, by the name of their subset."""
    named = experiment.config.grid.points_of(experiment.method(method))
    there = experiment.subsets(method, experiment.block(block))
    found = {subset_name(subset): list(texts) for subset, texts in named.items()}
    return {name: texts for name, texts in found.items() if name in there}


def _curves(experiment: Experiment) -> dict[str, Any]:
    """How sweeps are interpolated; nothing where they are not, so that no plan changes by it."""
    curves = experiment.config.evaluation.curves
    known = {"nodes": curves.nodes, "tolerance": curves.tolerance}
    return {"curves": known} if curves.interpolate else {}


def modules(experiment: Experiment, method: str) -> list[str]:
    """Return the plug-ins that merge."""
    return [*merger_modules(experiment.method(method).name, options(experiment, method))]
