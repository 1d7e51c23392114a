"""A grid's weights, heads and images in memory, and the models that benchmarks measure."""

from __future__ import annotations

from dataclasses import dataclass

from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.plan.setting import Split
from taskgrid.models.card import ModelCard
from taskgrid.models.clip import Clip, load_clip
from taskgrid.models.heads import Head
from taskgrid.store.weights import State

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


@dataclass(frozen=True)
class InMemory:
    """Weights, heads and images in memory; a ``material.Material``."""

    card: ModelCard
    state: State
    experts: dict[str, State]
    vectors: dict[str, State]
    heads: dict[str, Head]
    examples: dict[str, LabelledImages]

    @property
    def vector_count(self) -> int:
        return len(self.vectors)

    def base(self) -> State:
        return self.state

    def expert(self, task: str) -> State:
        return self.experts[task]

    def vector(self, task: str) -> State:
        return self.vectors[task]

    def head(self, task: str) -> Head:
        return self.heads[task]

    def images(self, task: str, split: Split) -> LabelledImages:
        return self.examples[task]


def clip_of(architecture: str) -> Clip:
    """Return the built-in model, or one with random weights: speed does not depend on them."""
    return load_clip(architecture, "s0" if architecture == BUILT_IN else "random")
