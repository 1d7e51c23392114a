"""Section `finetune.recipe`, and what is laid over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    StrictStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema

from taskgrid.config.sections.values import SECTION, Natural, Number, Positive
from taskgrid.sentences import choices, pydantic_sentence, shown

Steps = Annotated[Positive, Field(le=10_000_000)]


@dataclass(frozen=True, config=SECTION)
class RecipeSpec:
    """How an expert is trained; the defaults are those of the papers. Give `steps` or `epochs`.

    Ilharco et al. (ICLR 2023), appendix B: AdamW, learning rate 1e-5, weight decay 0.1, batches of
    128, 500 steps of warm-up, cosine decay to zero, gradient norm clipped to 1, about 2000 steps.
    """

    steps: Steps | None = None
    """Optimiser steps; excludes `epochs`."""
    epochs: Steps | None = None
    """Passes over the training split; excludes `steps`."""
    batch_size: Annotated[Positive, Field(le=1 << 20)] = 128
    """Images per optimiser step."""
    accumulate: Positive = 1
    """Micro-batches per optimiser step; divides `batch_size`. Saves memory, changes nothing else."""
    lr: Annotated[Number, Field(gt=0)] = 1e-5
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.1
    """Decoupled weight decay, on all trained parameters."""
    warmup_steps: Natural = 500
    """Steps of linear warm-up, before the cosine decay to zero."""
    clip_norm: Annotated[Number, Field(gt=0)] | None = 1.0
    """Largest L2 norm of the gradient; null does not clip."""
    crop_scale: Annotated[Number, Field(gt=0, le=1)] = 0.9
    """Smallest area of the random crop, as a share of the image; 1 turns it off."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Label smoothing of the cross-entropy."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs the encoder under autocast, on any device; weights and head stay fp32."""
    eval_every: Positive | None = None
    """Steps between validations; null validates after each epoch."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                f"give `steps` or `epochs`, not both: they are {self.steps} and {self.epochs}; set one "
                "to null"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}"
            )
        return self


class _KeysOfRecipe:
    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(handler(TypeAdapter(RecipeSpec).core_schema))


RecipeChanges = Annotated[dict[StrictStr, Any], _KeysOfRecipe()]
"""Keys of the recipe that differ from what lies below."""


def laid_over(
    recipe: RecipeSpec, changes: Iterable[tuple[str, Mapping[str, Any]]], task: str
) -> RecipeSpec:
    """Return a recipe with changes on top, the last one uppermost.

    Args:
        recipe: what lies below.
        changes: whose they are, for messages, and keys that differ; one that gives `steps` takes
            `epochs` away, and the other way round.
        task: whose recipe it is, for messages.

    Raises:
        ValueError: if a key is unknown, a value does not fit, or there is no length.
    """
    values = asdict(recipe)
    for owner, own in changes:
        for key in own:
            if key not in values:
                hint = choices(key, list(values), "allowed")
                raise ValueError(f"unknown key {shown(key)} in {owner}; {hint}")
        for key, other in (("steps", "epochs"), ("epochs", "steps")):
            if own.get(key) is not None:
                values[other] = None
        values |= own
        try:
            recipe = RecipeSpec(**values)
        except ValidationError as error:
            raise ValueError(f"{owner}: {pydantic_sentence(error, RecipeSpec)}") from None
    if recipe.steps is None and recipe.epochs is None:
        raise ValueError(f"finetune.recipe: task {task!r} needs `steps` or `epochs`")
    return recipe
