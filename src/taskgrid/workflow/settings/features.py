"""The study `features`: the networks of a run that are looked at, and what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from taskgrid.config import Experiment
from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import canonical_subset, subset_name, subset_number
from taskgrid.plugins.cards import merger_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow import paths
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.runs import plain_runs
from taskgrid.workflow.settings import learn, merge, studies

KINDS = (*learn.KINDS, "statistic")
"""All that merges are made of and compared with, and images."""


def labels(experiment: Experiment) -> list[str]:
    """Return the labels under which the study is configured."""
    return studies.labels_of(experiment, "features")


def check(experiment: Experiment) -> None:
    """Refuse the study where no network would be looked at.

    Raises:
        ConfigError: if all experts are tangent models.
    """
    for label in labels(experiment):
        if not plain_runs(experiment):
            raise ConfigError(
                f"study {label!r} looks at networks as they are, but all experts are evaluated as tangent "
                "models; take it out of `studies`, or add experts of another mode"
            )


def methods(experiment: Experiment) -> list[str]:
    """Return the labels of the methods whose merges are networks: those that merge logits have none."""
    names = {label: experiment.method(label).name for label in experiment.methods}
    return [label for label, name in names.items() if merger_card(name).gives != "logits"]


@lru_cache(maxsize=1)
def files(experiment: Experiment, *, model: str, mode: str, seed: str, study: str) -> Files:
    """Return what the networks of a run are made of, and images to look at them with."""
    needed = [
        label for method in methods(experiment) for label in experiment.needs(method).values()
    ]
    run = {"model": model, "mode": mode, "seed": seed}
    found = files_of(experiment, KINDS, experiment.trained, **run, labels=dict.fromkeys(needed))
    learned = {
        f"{method}/{subset}": path
        for method in methods(experiment)
        for subset, path in merge.learned(
            experiment, _subsets(experiment, study), **run, method=method
        ).items()
    }
    return replace(found, learned=learned)


def choices(experiment: Experiment, *, model: str, mode: str, seed: str, study: str) -> list[str]:
    """Return the files that say which points were chosen for the merges that are looked at."""
    numbers = [
        subset_number(name.split("+"), experiment.trained) for name in _subsets(experiment, study)
    ]
    blocks = [
        block.label
        for block in experiment.blocks
        if any(block.start <= number < block.stop for number in numbers)
    ]
    run = {"model": model, "mode": mode, "seed": seed}
    return [
        paths.BLOCK_CHOICES.format(**run, method=method, block=block)
        for method in methods(experiment)
        for block in blocks
    ]


def run(experiment: Experiment, *, model: str, mode: str, seed: str, study: str) -> str:
    """Return the settings of a look at the networks of a run."""
    options = _options(experiment, study)
    asked = {
        **{name: options[name] for name in ("study", "images", "lambdas", "weights_at")},
        "subsets": _subsets(experiment, study),
        "methods": {
            label: {
                "name": experiment.method(label).name,
                "options": merge.options(experiment, label),
                "needs": experiment.needs(label),
            }
            for label in methods(experiment)
        },
    }
    return canonical_json({"model": model, "mode": mode, "seed": int(seed), "asked": asked})


def modules(experiment: Experiment) -> list[str]:
    """Return the plug-ins that merge."""
    found = [module for label in methods(experiment) for module in merge.modules(experiment, label)]
    return [*dict.fromkeys(found)]


def networks(experiment: Experiment, study: str) -> int:
    """Return how many merges are held beside one another, each as what it is prepared from and a network."""
    points = 1 + len(_options(experiment, study)["lambdas"])
    return len(methods(experiment)) * len(_subsets(experiment, study)) * (2 + points)


def _options(experiment: Experiment, study: str) -> dict[str, Any]:
    options: dict[str, Any] = studies.reference(experiment, study)["options"]
    return options


def _subsets(experiment: Experiment, study: str) -> Sequence[str]:
    wanted = _options(experiment, study)["subsets"] or [experiment.trained]
    return [subset_name(canonical_subset(tasks)) for tasks in wanted]
