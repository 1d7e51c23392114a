"""Precision: what proves a reduced one against fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from taskgrid.config import Experiment
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow.files import PER_RUN, PER_TASK, Files, files_of
from taskgrid.workflow.runs import proven_runs
from taskgrid.workflow.settings import evaluate, merge

KINDS = tuple(kind for kind in (*PER_RUN, *PER_TASK) if kind != "expert_manifest")
"""Everything; the vector's manifest says which expert it was made from."""


def files(experiment: Experiment, *, model: str, mode: str, seed: str) -> Files:
    """Return what a proof is made with."""
    labels = experiment.needs(experiment.probe()[0]).values()
    return files_of(
        experiment, KINDS, experiment.trained, model=model, mode=mode, seed=seed, labels=labels
    )


def proof(experiment: Experiment, *, model: str, mode: str, seed: str) -> str:
    """Return the settings of a proof."""
    evaluation = experiment.config.evaluation
    label, scale = experiment.probe()
    return canonical_json(
        {
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "method": experiment.method(label).name,
            "options": merge.options(experiment, label),
            "needs": experiment.needs(label),
            "lambda": scale,
            "precision": evaluation.precision,
            **evaluate.passing(experiment),
            **evaluation.proof.model_dump(),
        }
    )


def modules(experiment: Experiment) -> list[str]:
    """Return the plug-in that merges the one merge of a proof."""
    return merge.modules(experiment, experiment.probe()[0])


def listing(experiment: Experiment, proofs: Sequence[str]) -> str:
    """Return every proof, where Snakemake has it, with the labels that tables give it."""
    found = zip(proven_runs(experiment), proofs, strict=True)
    return canonical_json([{"labels": asdict(run), "proof": proof} for run, proof in found])
