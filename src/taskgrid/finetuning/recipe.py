"""The training recipe: what is done, not to what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from taskgrid.errors import ConfigError
from taskgrid.sentences import unknown


@dataclass(frozen=True)
class Recipe:
    """How an expert is trained; the defaults are those of the papers.

    Ilharco et al. (ICLR 2023), appendix B: AdamW, learning rate 1e-5, weight decay 0.1, batches of
    128, 500 steps of warm-up, cosine decay to zero, gradient norm clipped to 1, about 2000 steps.

    Attributes:
        steps: optimiser steps; excludes ``epochs``.
        epochs: passes over the training images; excludes ``steps``.
        batch_size: images per optimiser step.
        accumulate: micro-batches per optimiser step; saves memory, changes nothing else.
        lr: peak learning rate.
        weight_decay: decoupled weight decay, on all trained parameters.
        warmup_steps: steps of linear warm-up.
        clip_norm: largest L2 norm of the gradient; None does not clip.
        crop_scale: smallest area of the random crop as a share of the image; 1 turns it off.
        label_smoothing: label smoothing of the cross-entropy.
        precision: ``bf16`` runs the encoder under autocast on every kind of device; weights stay
            float32.
        eval_every: steps between validations; None validates after each epoch.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    lr: float = 1e-5
    weight_decay: float = 0.1
    warmup_steps: int = 500
    clip_norm: float | None = 1.0
    crop_scale: float = 0.9
    label_smoothing: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    eval_every: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError("the recipe needs `steps` or `epochs`, and not both")
        for name in ("steps", "epochs", "batch_size", "accumulate", "eval_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"recipe.{name} is {value}, but must be at least 1")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"recipe.accumulate {self.accumulate} does not divide batch_size {self.batch_size}"
            )
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ConfigError(f"recipe.lr is {self.lr}, but must be a positive number")
        if not 0 < self.crop_scale <= 1:
            raise ConfigError(f"recipe.crop_scale is {self.crop_scale}, but must lie in (0, 1]")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """Read a recipe from configuration values.

        Raises:
            ConfigError: if a key is unknown or a value does not fit.
        """
        known = [entry.name for entry in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(unknown("recipe key", key, known))
        return cls(**values)

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
