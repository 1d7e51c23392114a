"""The study `features`: the networks of a run that are looked at, and what they are made of."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from taskgrid.config import Experiment
from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import subset_name, subset_number, subset_of_number
from taskgrid.plugins.cards import merger_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.sentences import choices as choices_of
from taskgrid.sentences import shown
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
        ConfigError: if all experts are tangent models, or a mode is named that there is not.
    """
    plain = sorted({run.mode for run in plain_runs(experiment)})
    for label in labels(experiment):
        for mode in _options(experiment, label)["modes"] or ():
            if mode not in plain:
                raise ConfigError(
                    f"study {label!r} has modes with {shown(mode)}; "
                    f"{choices_of(mode, plain, 'modes that are evaluated as they are')}"
                )
        if not plain:
            raise ConfigError(
                f"study {label!r} looks at networks as they are, but all experts are evaluated as tangent "
                "models; take it out of `studies`, or add experts of another mode"
            )


def merges(experiment: Experiment, mode: str, study: str) -> dict[str, list[str]]:
    """Return the merges that are looked at: method -> subsets; those that merge logits have no network."""
    numbers = [
        subset_number(tasks, experiment.trained)
        for tasks in _options(experiment, study)["subsets"] or [experiment.trained]
    ]
    found = {
        label: [
            subset_name(subset_of_number(number, experiment.trained))
            for number in numbers
            if number in experiment.numbers_of(label)
        ]
        for label in experiment.methods_of(mode)
        if merger_card(experiment.method(label).name).gives != "logits"
    }
    return {label: subsets for label, subsets in found.items() if subsets}


@lru_cache(maxsize=1)
def files(experiment: Experiment, *, model: str, mode: str, seed: str, study: str) -> Files:
    """Return what the networks of a run are made of, and images to look at them with."""
    looked_at = merges(experiment, mode, study)
    needed = [label for method in looked_at for label in experiment.needs(method).values()]
    run = {"model": model, "mode": mode, "seed": seed}
    found = files_of(experiment, KINDS, experiment.trained, **run, labels=dict.fromkeys(needed))
    learned = {
        f"{method}/{subset}": path
        for method, subsets in looked_at.items()
        for subset, path in merge.learned(experiment, subsets, **run, method=method).items()
    }
    return replace(found, learned=learned)


def choices(experiment: Experiment, *, model: str, mode: str, seed: str, study: str) -> list[str]:
    """Return the files that say which points were chosen for the merges that are looked at."""
    run = {"model": model, "mode": mode, "seed": seed}
    return [
        paths.BLOCK_CHOICES.format(**run, method=method, block=block.label)
        for method, subsets in merges(experiment, mode, study).items()
        for block in experiment.blocks(method)
        if {*subsets} & {*experiment.subsets(method, block)}
    ]


def run(experiment: Experiment, *, model: str, mode: str, seed: str, study: str) -> str:
    """Return the settings of a look at the networks of a run."""
    options = _options(experiment, study)
    asked = {
        **{name: options[name] for name in ("study", "images", "lambdas", "weights_at")},
        "methods": {
            label: {
                "name": experiment.method(label).name,
                "options": merge.options(experiment, label),
                "needs": experiment.needs(label),
                "subsets": subsets,
            }
            for label, subsets in merges(experiment, mode, study).items()
        },
    }
    return canonical_json({"model": model, "mode": mode, "seed": int(seed), "asked": asked})


def modules(experiment: Experiment, mode: str, study: str) -> list[str]:
    """Return the plug-ins that merge."""
    looked_at = merges(experiment, mode, study)
    found = [module for label in looked_at for module in merge.modules(experiment, label)]
    return [*dict.fromkeys(found)]


def networks(experiment: Experiment, mode: str, study: str) -> int:
    """Return how many merges are held beside one another, each as what it is prepared from and a network."""
    points = 1 + len(_options(experiment, study)["lambdas"])
    return sum(map(len, merges(experiment, mode, study).values())) * (2 + points)


def _options(experiment: Experiment, study: str) -> dict[str, Any]:
    options: dict[str, Any] = studies.reference(experiment, study)["options"]
    return options
