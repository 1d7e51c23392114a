"""Learning for a subset: the pieces of an engine, handed to a method that learns.

What comes of it are two files: ``coefficients.json``, and beside it ``tensors.safetensors`` for what is too
large for text. *prepare* only uses them. The first holds the digest of the second, and its own is in every
key that used it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from taskgrid.errors import ConfigError, DataError, DeviceError
from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.engine.resident import Resident
from taskgrid.evaluation.plan.setting import Setting, Shown, images_of
from taskgrid.lattice.subsets import canonical_subset, subset_name
from taskgrid.machine.meter import OpenTally
from taskgrid.merging.learning import Learner, Learning, LearningProblem, LearningTask
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import Pixels, full_float32, normalizer, to_device
from taskgrid.models.linearized import LinearizedEncoder
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import digest_state


def learn(
    material: Material,
    setting: Setting,
    recipe: MergeRecipe,
    subset: Sequence[str],
    device: torch.device,
    progress: OpenTally,
) -> Learning:
    """Learn what a method needs for a subset.

    Args:
        material: base, vectors, heads, images.
        setting: what they are, and how they are evaluated; its seed counts.
        recipe: how to merge.
        subset: the tasks to be merged.
        device: where to compute.
        progress: makes a counter of images from a label and a total.

    Raises:
        ConfigError: if the method learns nothing.
        DataError: if a task has no images.
        DeviceError: if the device has no memory for a batch.
        LineageError: if a file is not what the setting says, or a task has no vector.
        TrainingError: if the loss is not finite.
    """
    if not recipe.learns:
        raise ConfigError(f"merge method {recipe.name!r} learns nothing; leave out the learn rule")
    learner, tasks = cast(Learner, recipe.merger), canonical_subset(subset)
    problem = open_problem(material, setting, recipe, tasks, device)
    total = learner.images_to_pass(problem, recipe.options)
    seed = derive_seed("learn", setting.seed)
    try:
        with full_float32(), progress(f"learn {subset_name(tasks)}", total) as tally:
            return learner.learn(problem, recipe.options, seed, tally)
    except torch.OutOfMemoryError as error:
        smaller = "batch_size" in recipe.options
        raise DeviceError(
            f"the device has no memory to learn {subset_name(tasks)} by merge method {recipe.name!r}; "
            f"{'lower its option `batch_size`' if smaller else 'learn it on another device'}"
        ) from error


def learned_file(
    setting: Setting, recipe: MergeRecipe, subset: Sequence[str], learning: Learning
) -> dict[str, Any]:
    """Return the content of ``coefficients.json``: equal inputs give equal values.

    Args:
        setting: what was learned from.
        recipe: how it is merged.
        subset: the merged tasks.
        learning: what came of it.
    """
    images = images_of(recipe.options)
    return {
        "method": recipe.name,
        "options": dict(recipe.options),
        "subset": subset_name(subset),
        "images": images,
        "seed": setting.seed,
        "coefficients": {task: one.tolist() for task, one in learning.coefficients.items()},
        "tensors": digest_state(learning.tensors),
        "history": [list(entry) for entry in learning.history],
        "lineage": setting.learned_from(subset, images),
    }


def open_problem(
    material: Material,
    setting: Setting,
    recipe: MergeRecipe,
    tasks: Sequence[str],
    device: torch.device,
) -> LearningProblem:
    """Return what a method that learns may look at, on a device.

    Args:
        material: base, vectors, heads, images.
        setting: how its network is evaluated.
        recipe: says whose images are looked at, and whether labels are.
        tasks: the merged tasks, in canonical order.
        device: where to compute.
    """
    resident = Resident(material, device, vectors=len(tasks))
    tangent = setting.evaluation == "tangent"
    kind = LinearizedEncoder if tangent else ImageEncoder
    encoder = kind.from_card(resident.card, resident.base).to(device)
    images, labels = images_of(recipe.options), recipe.card.labels
    return LearningProblem(
        resident.base,
        {task: _task(resident, task, images, labels) for task in tasks},
        partial(_features, encoder),
        tangent=tangent,
        tower=None if tangent else encoder.tower,
    )


def _task(resident: Resident, task: str, split: Shown, labels: bool) -> LearningTask:
    # Asked for first, so that vectors have their room before images do.
    vector, head, pixels = resident.vector(task), resident.head(task), resident.pixels(task, split)
    if not len(pixels):
        raise DataError(f"task {task!r} has no {split} images to learn from")
    card, device = resident.card, resident.device
    prepare = normalizer(card.mean, card.std, device)

    def inputs(rows: NDArray[np.int64]) -> torch.Tensor:
        return prepare(to_device(_rows(pixels, rows), device))

    seen = resident.labels(task, split) if labels else None
    return LearningTask(vector, head, len(pixels), inputs, seen)


def _rows(pixels: Pixels, rows: NDArray[np.int64]) -> torch.Tensor | NDArray[Any]:
    return pixels[torch.from_numpy(rows)] if isinstance(pixels, torch.Tensor) else pixels[rows]


def _features(
    encoder: ImageEncoder, state: Mapping[str, torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    weights = {f"tower.{name}": tensor for name, tensor in state.items()}
    return cast(torch.Tensor, functional_call(encoder, weights, (images,)))
