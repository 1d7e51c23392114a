"""Learning: the coefficients of a subset, for merge methods that learn any."""

from __future__ import annotations

from taskgrid.config import Experiment
from taskgrid.plugins.cards import merger_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.settings import merge

KINDS = (*merge.KINDS, "base", "images", "head", "vector")
"""What a plan compares, and what is learned from."""


def methods(experiment: Experiment) -> list[str]:
    """Return the labels of the methods that learn."""
    found = experiment.methods
    return [label for label in found if merger_card(experiment.method(label).name).learned]


def files(
    experiment: Experiment, *, model: str, mode: str, seed: str, method: str, subset: str
) -> Files:
    """Return what coefficients are learned from.

    Raises:
        ConfigError: if a name does not exist, or the subset is called otherwise in tables.
    """
    tasks = experiment.point_tasks(model, mode, seed, method, subset, "1.00")
    return files_of(experiment, KINDS, tasks, model=model, mode=mode, seed=seed)


def coefficients(
    experiment: Experiment, *, model: str, mode: str, seed: str, method: str, subset: str
) -> str:
    """Return the settings of learning the coefficients of a subset."""
    return canonical_json(
        {
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "method": experiment.method(method).name,
            "options": merge.options(experiment, method),
            "subset": subset,
            "evaluation": experiment.evaluation(mode),
        }
    )
