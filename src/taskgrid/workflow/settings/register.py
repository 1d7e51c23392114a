"""Registered models: experts, and what each method merges of all tasks, as folders that open_clip loads."""

from __future__ import annotations

import json
from dataclasses import asdict

from taskgrid.config import Experiment
from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import subset_name
from taskgrid.plugins.cards import merger_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.tracking.building.identity import merge_id
from taskgrid.workflow import paths
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.runs import plain_runs
from taskgrid.workflow.settings import export, merge

_ADDITION = "addition"


def files(experiment: Experiment) -> list[str]:
    """Return what is registered: nothing, unless the configuration asks for it.

    Tangent models are left out, for what open_clip makes of their weights is another function than was
    measured; and methods that give no single model, or do not merge all tasks.

    Raises:
        ConfigError: if it asks for it, and no point is chosen for the merge of all tasks.
    """
    if not experiment.config.tracking.models:
        return []
    whole = [label for label in experiment.methods if _merges_all(experiment, label)]
    if _ADDITION not in experiment.studies or not whole:
        raise ConfigError(
            "tracking.models registers the merge of all tasks at its chosen point; let grid.subsets hold it "
            f"and studies name {_ADDITION}, or set tracking.models to false"
        )
    runs = plain_runs(experiment)
    experts = [run for run in runs if run in experiment.expert_runs]
    return [
        *(
            paths.REGISTERED_EXPERT.format(**asdict(run), task=task)
            for run in experts
            for task in experiment.trained
        ),
        *(
            paths.REGISTERED_MERGE.format(**asdict(run), method=method)
            for run in runs
            for method in experiment.methods_of(run.mode)
            if method in whole and _gives_model(experiment, method)
        ),
    ]


def expert(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> str:
    """Return the settings of writing an expert as a CLIP."""
    base = experiment.model(model)
    return canonical_json(
        {
            "architecture": base.architecture,
            "pretrained": base.pretrained,
            "identity": {
                "name": f"expert.{task}.{model}.{mode}.s{seed}",
                "record": f"expert/{model}/{mode}/{seed}/{task}",
                "architecture": base.architecture,
                "pretrained": base.pretrained,
            },
        }
    )


def merge_files(experiment: Experiment, *, model: str, mode: str, seed: str, method: str) -> Files:
    """Return what the merge of all tasks is made of."""
    point = {"subset": _all(experiment), "scale": "1.00"}
    return export.files(experiment, model=model, mode=mode, seed=seed, method=method, **point)


def merged(experiment: Experiment, *, model: str, mode: str, seed: str, method: str) -> str:
    """Return the settings of writing the merge of all tasks as a CLIP; its point is that which was chosen."""
    run = {"model": model, "mode": mode, "seed": seed, "method": method}
    point = json.loads(export.point(experiment, **run, subset=_all(experiment), scale="1.00"))
    base, name = experiment.model(model), experiment.method(method).name
    options = canonical_json(merge.options(experiment, method))
    return canonical_json(
        {
            **point,
            "point": None,
            "identity": {
                "name": f"{method}.{model}.{mode}.s{seed}",
                "record": merge_id(model, mode, seed, name, options, _all(experiment)),
                "architecture": base.architecture,
                "pretrained": base.pretrained,
            },
        }
    )


def choices(experiment: Experiment, *, model: str, mode: str, seed: str, method: str) -> str:
    """Return the file that says which point was chosen for the merge of all tasks."""
    block = next(
        block
        for block in experiment.blocks(method)
        if _all(experiment) in experiment.subsets(method, block)
    )
    run = {"model": model, "mode": mode, "seed": seed, "method": method}
    return paths.BLOCK_CHOICES.format(**run, block=block.label)


def expert_files(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> Files:
    """Return the files of an expert."""
    kinds = ("expert", "expert_manifest")
    return files_of(experiment, kinds, [task], model=model, mode=mode, seed=seed)


def _all(experiment: Experiment) -> str:
    return subset_name(tuple(sorted(experiment.trained)))


def _merges_all(experiment: Experiment, method: str) -> bool:
    return (1 << len(experiment.trained)) - 1 in experiment.numbers_of(method)


def _gives_model(experiment: Experiment, method: str) -> bool:
    return merger_card(experiment.method(method).name).gives == "model"
