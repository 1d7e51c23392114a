"""Small trainings, their interruption, and the papers' optimiser written out, for tests of what trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch

from taskgrid.finetuning.augment import random_resized_crop
from taskgrid.finetuning.interruption import Scratch
from taskgrid.finetuning.loop import Finetuned, Samples, finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.finetuning.training import Training
from taskgrid.models.card import ModelCard
from taskgrid.models.clip import Clip
from taskgrid.models.inference import to_input
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State
from tests.unit.example_models import tiny_head, tiny_samples

SHORT = Recipe(steps=6, batch_size=8, warmup_steps=2, lr=1e-2)


def run(clip: Clip, recipe: Recipe = SHORT, **options: Any) -> Finetuned:
    """Fine-tune on made-up images; ``options`` are those of ``finetune``, and ``data`` and ``val``."""
    settings: dict[str, Any] = {"task": "pets", **options}
    data = settings.pop("data", tiny_samples(30))
    val = settings.pop("val", tiny_samples(20, seed=1))
    return finetune(
        clip.card(), clip.visual_state(), tiny_head(clip), data, val, recipe, **settings
    )


@contextmanager
def interrupted_at(step: int) -> Any:
    """Within the block, trainings end with an error when they come to a step."""
    update = Training._update

    def faulty(self: Training) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        update(self)

    with mock.patch.object(Training, "_update", faulty), pytest.raises(KeyboardInterrupt):
        yield


def resumed(
    clip: Clip, recipe: Recipe, scratch: Scratch, at: tuple[int, ...], **options: Any
) -> Finetuned:
    """Fine-tune, interrupted before each of some updates and then resumed."""
    for step in at:
        with interrupted_at(step):
            run(clip, recipe, scratch=scratch, **options)
    return run(clip, recipe, scratch=scratch, **options)


def drawn(
    data: Samples, card: ModelCard, recipe: Recipe, root: int, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and labels of a batch, drawn by hand."""
    epoch, place = divmod(number, math.ceil(len(data) / recipe.batch_size))
    order = torch.randperm(
        len(data), generator=torch.Generator().manual_seed(derive_seed("order", root, epoch))
    )
    chosen = order[place * recipe.batch_size : (place + 1) * recipe.batch_size].numpy()
    crops = torch.Generator().manual_seed(derive_seed("crop", root, number))
    pixels = random_resized_crop(torch.tensor(data.pixels[chosen]), recipe.crop_scale, crops)
    return to_input(pixels, card.mean, card.std), torch.tensor(data.labels[chosen])


def descend(
    weights: Mapping[str, torch.Tensor],
    recipe: Recipe,
    total: int,
    gradients: Callable[[int], Mapping[str, torch.Tensor]],
) -> None:
    """AdamW with clipping by hand, in place: ``gradients`` of each step at the weights as they are."""
    first: State = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    second: State = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step in range(total):
        found = gradients(step)
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in found.values()))
        shrink = min(1.0, (recipe.clip_norm or math.inf) / (norm + 1e-6))
        rate = recipe.learning_rate(step, total)
        with torch.no_grad():
            for name, weight in weights.items():
                gradient = found[name] * shrink
                weight.mul_(1 - rate * recipe.weight_decay)
                first[name].mul_(0.9).add_(gradient, alpha=0.1)
                second[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                mean = first[name] / (1 - 0.9 ** (step + 1))
                spread = (second[name] / (1 - 0.999 ** (step + 1))).sqrt()
                weight.sub_(rate * mean / (spread + 1e-8))
