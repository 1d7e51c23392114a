"""Export: one grid point as a CLIP that others load."""

from __future__ import annotations

from dataclasses import replace

from taskgrid.config import Experiment
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of
from taskgrid.workflow.settings import merge

KINDS = ("card", "base", "vector", "vector_manifest", "statistic", "statistic_manifest")
"""What any point is made of; what was learned is compared with all that a plan reads."""


def files(
    experiment: Experiment,
    *,
    model: str,
    mode: str,
    seed: str,
    method: str,
    subset: str,
    scale: str,
) -> Files:
    """Return what a point is made of.

    Raises:
        ConfigError: if a name does not exist, or the point is called otherwise in tables.
    """
    # First, because it says which of the names is wrong.
    tasks = experiment.point_tasks(model, mode, seed, method, subset, scale)
    run = {"model": model, "mode": mode, "seed": seed}
    learned = merge.learned(experiment, [subset], **run, method=method)
    kinds = dict.fromkeys((*KINDS, *merge.KINDS)) if learned else KINDS
    labels = experiment.needs(method).values()
    return replace(files_of(experiment, kinds, tasks, **run, labels=labels), learned=learned)


def point(
    experiment: Experiment,
    *,
    model: str,
    mode: str,
    seed: str,
    method: str,
    subset: str,
    scale: str,
) -> str:
    """Return the settings of an export."""
    merger, base = experiment.method(method), experiment.model(model)
    return canonical_json(
        {
            "architecture": base.architecture,
            "pretrained": base.pretrained,
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "method": merger.name,
            "options": merge.options(experiment, method),
            "subset": subset,
            "lambda": scale,
            "evaluation": experiment.evaluation(mode),
            "max_bytes": experiment.config.export.max_mb << 20,
        }
    )
