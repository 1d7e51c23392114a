"""Evaluation: the base, the experts, and the blocks of the grid."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from taskgrid.config import Experiment
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow import paths
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.runs import proven_runs
from taskgrid.workflow.settings import merge, studies

KINDS = ("card", "base", "split", "images", "head", "expert", "vector", "statistic")
"""What points are measured with. Their manifests have gone into the plan, which is followed."""

REFERENCE_KINDS = (
    *("card", "base", "dataset", "split", "images"),
    *("head", "head_manifest", "expert", "expert_manifest"),
)


@lru_cache(maxsize=1)
def files(
    experiment: Experiment, *, model: str, mode: str, seed: str, method: str, block: str
) -> Files:
    """Return what a block is evaluated with."""
    tasks, labels = merge.tasks(experiment, method, block), experiment.needs(method).values()
    found = files_of(experiment, KINDS, tasks, model=model, mode=mode, seed=seed, labels=labels)
    subsets = experiment.subsets(method, experiment.block(block))
    learned = merge.learned(experiment, subsets, model=model, mode=mode, seed=seed, method=method)
    return replace(found, learned=learned)


def passing(experiment: Experiment) -> dict[str, Any]:
    """Return how images pass through the encoder."""
    return experiment.config.evaluation.model_dump(include={"batch_size", "compile"})


def block(experiment: Experiment) -> str:
    """Return the settings of a block's evaluation: what the plan does not hold."""
    return canonical_json(passing(experiment))


def modules(experiment: Experiment, method: str) -> list[str]:
    """Return the plug-ins that merge and that choose."""
    return [*merge.modules(experiment, method), *studies.modules(experiment)]


def reference_files(experiment: Experiment, *, model: str, mode: str, seed: str) -> Files:
    """Return what the base and the experts of a run are evaluated with."""
    return files_of(
        experiment, REFERENCE_KINDS, experiment.tasks, model=model, mode=mode, seed=seed
    )


def reference(experiment: Experiment, *, model: str, mode: str, seed: str) -> str:
    """Return the settings of evaluating the base and the experts of a run."""
    return canonical_json(
        {
            "model": model,
            "mode": mode,
            "seed": int(seed),
            **passing(experiment),
            "precision": experiment.config.evaluation.precision,
            "evaluation": experiment.evaluation(mode),
        }
    )


def proof(experiment: Experiment) -> list[str]:
    """Return the pattern of what must have passed before a run is evaluated; fp32 needs no proof."""
    return [paths.PROOF] if proven_runs(experiment) else []
