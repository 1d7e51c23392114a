"""Learning: the coefficients of a subset, for merge methods that learn any."""

from __future__ import annotations

from functools import lru_cache

from taskgrid.config import Experiment
from taskgrid.config.named import point_tasks
from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import subset_name, subset_of_number
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.settings import merge

KINDS = (*merge.KINDS, "base", "images", "head", "vector")
"""What a plan compares, and what is learned from."""

_LONGEST = 240
"""Letters of a subset's name, below the 255 bytes that a name of a file or folder may have."""


def methods(experiment: Experiment) -> list[str]:
    """Return the labels of the methods that learn."""
    return [label for label in experiment.methods if experiment.learns(label)]


def check(experiment: Experiment) -> None:
    """Refuse subsets whose names are too long for a folder: what is learned lies in one of that name.

    Raises:
        ConfigError: if there is one; the text says what to do.
    """
    for label in methods(experiment):
        for number in experiment.numbers_of(label):
            name = subset_name(subset_of_number(number, experiment.trained))
            if len(name) > _LONGEST:
                raise ConfigError(
                    f"merge method {label!r} learns coefficients for a subset of {name.count('+') + 1} tasks "
                    f"whose name has {len(name)} letters, and a file system takes {_LONGEST}; shorten "
                    "names of tasks, or choose smaller subsets"
                )


@lru_cache(maxsize=1)
def files(
    experiment: Experiment, *, model: str, mode: str, seed: str, method: str, subset: str
) -> Files:
    """Return what coefficients are learned from.

    Raises:
        ConfigError: if a name does not exist, or the subset is called otherwise in tables.
    """
    tasks = point_tasks(experiment, model, mode, seed, method, subset, "1.00")
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
