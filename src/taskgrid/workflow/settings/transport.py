"""Experts of another base: where the other run has them, and how they are brought here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.plugins.cards import plugin_options
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow import paths


@dataclass(frozen=True)
class SourceFiles:
    """What the other run has of an expert: its base and card, the expert and its manifest."""

    card: str
    base: str
    manifest: str
    expert: str


def files(experiment: Experiment, name: str, task: str) -> SourceFiles:
    """Return the files of an expert in the other run's results folder."""
    spec = experiment.transport(name)
    known = {"model": spec.model, "mode": spec.mode, "seed": spec.seed, "task": task}
    patterns = (paths.CARD, paths.BASE, paths.EXPERT_MANIFEST, paths.EXPERT)
    return SourceFiles(*(_moved(pattern.format(**known), spec.results) for pattern in patterns))


def expert(experiment: Experiment, *, model: str, mode: str, seed: str, task: str) -> str:
    """Return the settings of a transport."""
    spec = experiment.transport(mode)
    return canonical_json(
        {
            "model": model,
            "mode": mode,
            "seed": int(seed),
            "task": task,
            "aligner": spec.aligner,
            "options": dict(plugin_options("aligner", spec.aligner, spec.options)),
            "source": {"model": spec.model, "mode": spec.mode, "seed": spec.seed},
        }
    )


def modules(experiment: Experiment, name: str) -> list[str]:
    """Return the plug-in that aligns."""
    return [plugins.module_of("aligner", experiment.transport(name).aligner)]


def _moved(path: str, results: str) -> str:
    return str(Path(results).expanduser() / Path(path).relative_to("results"))
