"""The built-in tasks, and the models that benchmarks measure."""

from __future__ import annotations

from taskgrid.models.clip import Clip, load_clip

BUILT_IN = "taskgrid-vit-4"

TASKS = (
    "handwritten",
    "street_digits",
    "road_signs",
    "textures",
    "pictograms",
    "counting",
    "flags",
    "shapes",
)


def clip_of(architecture: str) -> Clip:
    """Return the built-in model, or one with random weights: speed does not depend on them."""
    return load_clip(architecture, "s0" if architecture == BUILT_IN else "random")
