"""Task vectors: what compares those of a run."""

from __future__ import annotations

from taskgrid.config import Experiment
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import Files, files_of

KINDS = ("vector", "vector_manifest")


def run(*, model: str, mode: str, seed: str) -> str:
    """Return what names a run in tables."""
    return canonical_json({"model": model, "mode": mode, "seed": int(seed)})


def files(experiment: Experiment, *, model: str, mode: str, seed: str) -> Files:
    """Return the vectors of a run."""
    return files_of(experiment, KINDS, experiment.trained, model=model, mode=mode, seed=seed)
