"""Models: towers, heads, and the pre-training of the built-in one."""

from __future__ import annotations

from taskgrid.config import Experiment
from taskgrid.config.architectures import architecture_config, is_own
from taskgrid.provenance.digests import canonical_json, digest


def base(experiment: Experiment, model: str) -> str:
    """Return the settings that name a base model: of its tower, and of its heads."""
    spec = experiment.model(model)
    known = {"architecture": spec.architecture, "pretrained": spec.pretrained}
    if is_own(spec.architecture):
        # What a name stands for never changes; what a file holds may.
        known["config"] = digest(architecture_config(spec.architecture))
    return canonical_json(known)


def pretrain(seed: str) -> str:
    """Return the settings of the built-in model's pre-training."""
    return canonical_json(
        {"seed": int(seed), "images": 150_000, "batch": 128, "warmup": 200, "steps": 6000}
    )
