"""The training recipe at work: how many steps there are, and the learning rate of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic.dataclasses import dataclass

from taskgrid.config.sections.recipe import RecipeSpec
from taskgrid.config.sections.values import SECTION
from taskgrid.errors import ConfigError
from taskgrid.sentences import pydantic_sentence


@dataclass(frozen=True, config=SECTION)
class Recipe(RecipeSpec):
    """A recipe with a length; its keys and their defaults are those of the configuration."""

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        if self.steps is None and self.epochs is None:
            raise ValueError("the recipe needs `steps` or `epochs`")
        return self

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """Read a recipe from configuration values.

        Raises:
            ConfigError: if a key is unknown or a value does not fit.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError(pydantic_sentence(error, cls, within="recipe")) from None

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        return asdict(self)

    def steps_per_epoch(self, images: int) -> int:
        """Return the optimiser steps of one pass over ``images``; the last batch may be smaller."""
        return -(-images // self.batch_size)

    def total_steps(self, images: int) -> int:
        """Return the optimiser steps in all.

        Raises:
            ConfigError: if there is no image, or the warm-up leaves nothing of the training.
        """
        if images < 1:
            raise ConfigError("there are no training images; check the task's training split")
        total = (
            self.steps
            if self.steps is not None
            else (self.epochs or 0) * self.steps_per_epoch(images)
        )
        if self.warmup_steps >= total:
            raise ConfigError(
                f"recipe.warmup_steps {self.warmup_steps} leaves nothing of {total} steps; "
                "lower it, or train longer"
            )
        return total

    def learning_rate(self, step: int, total: int) -> float:
        """Return the learning rate of update ``step`` (counted from 0) of ``total``.

        Linear from ``lr / warmup_steps`` to ``lr``, then ``lr (1 + cos(pi e / E)) / 2`` at update
        ``e`` of the remaining ``E``.
        """
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / (total - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
