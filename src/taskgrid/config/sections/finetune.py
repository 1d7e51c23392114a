"""Section `finetune`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from taskgrid.config.sections.plugin import NeedySpec, distinct
from taskgrid.config.sections.recipe import RecipeChanges, RecipeSpec
from taskgrid.config.sections.values import Name, Named, Natural, Number, Section, unique


class ModeSpec(NeedySpec):
    """A fine-tuning mode (`standard`, ...) with its options."""

    kind = "mode"

    recipe: RecipeChanges = Field({})
    """Keys of `finetune.recipe` that differ in this mode. They lie over those that the mode itself brings,
    and below those of a task."""


class FinetuneSpec(Section):
    """Which experts are trained, and how."""

    modes: Named[ModeSpec] = Field(["standard"], validate_default=True)
    """Fine-tuning modes; a bare name will do. May be empty beside `experts` or `transport`."""
    seeds: list[Natural] = Field([0], min_length=1)
    """Seeds."""
    recipe: RecipeSpec = Field(default_factory=RecipeSpec)
    """The training recipe. Over it lie, from bottom to top: what a mode itself brings, `modes[].recipe`,
    `recipes[task]`, `tasks[].finetune`."""
    recipes: dict[Name, RecipeChanges] | None = None
    """Keys of the recipe that differ for a task, by the task's name."""
    checkpoint_seconds: Annotated[Number, Field(ge=0)] = 60
    """Time between the checkpoints from which a killed training resumes."""

    @field_validator("modes")
    @classmethod
    def _distinct_labels(cls, value: list[ModeSpec]) -> list[ModeSpec]:
        distinct(value)
        return value

    @field_validator("seeds")
    @classmethod
    def _unique_seeds(cls, value: list[int]) -> list[int]:
        return unique(value)
