"""Lattices on a budget: which merges, how many of them are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from taskgrid.config import Experiment
from taskgrid.config.sections.lattice import LatticeSpec
from taskgrid.errors import ConfigError
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.runs import lattices
from taskgrid.workflow.settings import evaluate, merge


def plan_files(experiment: Experiment, *, model: str, mode: str, seed: str, method: str) -> Files:
    """Return what a lattice's plan is made of."""
    return _files(experiment, merge.KINDS, model, mode, seed, method)


def files(experiment: Experiment, *, model: str, mode: str, seed: str, method: str) -> Files:
    """Return what a lattice is evaluated with."""
    return _files(experiment, evaluate.KINDS, model, mode, seed, method)


def _files(
    experiment: Experiment, kinds: Sequence[str], model: str, mode: str, seed: str, method: str
) -> Files:
    labels = experiment.needs(method).values()
    return files_of(
        experiment, kinds, experiment.trained, model=model, mode=mode, seed=seed, labels=labels
    )


def plan(experiment: Experiment, *, model: str, mode: str, seed: str, method: str) -> str:
    """Return the settings of a lattice's plan."""
    spec, lattice = experiment.method(method), _asked(experiment)
    return canonical_json(
        {
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "method": spec.name,
            "options": merge.options(experiment, method),
            "needs": experiment.needs(method),
            "design": asdict(lattice.design()),
            "lambdas": lattice.scales(),
            # Their order numbers the subsets of the design.
            "tasks": experiment.trained,
            "outside": experiment.config.evaluation.outside,
            "curves_on": ["val"],
            "studies": [],
            "precision": experiment.config.evaluation.precision,
        }
    )


def predict(experiment: Experiment) -> str:
    """Return the settings of evaluating and predicting a lattice."""
    lattice = _asked(experiment)
    return canonical_json(
        {
            **evaluate.passing(experiment),
            "split": lattice.split,
            "budget": asdict(lattice.spent),
        }
    )


def listing(experiment: Experiment, rows: Sequence[str], reports: Sequence[str]) -> str:
    """Return rows and report of every lattice, with the labels that tables give it.

    Args:
        experiment: the experiment.
        rows: a file per lattice, where Snakemake has it.
        reports: the same.
    """
    found = zip(lattices(experiment), rows, reports, strict=True)
    return canonical_json(
        [{"labels": labels, "rows": row, "report": report} for labels, row, report in found]
    )


def _asked(experiment: Experiment) -> LatticeSpec:
    if experiment.config.lattice is None:
        raise ConfigError(
            "no lattice on a budget is configured; add `lattice` to the configuration"
        )
    return experiment.config.lattice
