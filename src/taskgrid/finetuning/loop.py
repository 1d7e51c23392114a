"""Fine-tuning an image tower on one task under its frozen head; seeded and resumable."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taskgrid.errors import DataError, LineageError
from taskgrid.finetuning.feed import Feed, Samples
from taskgrid.finetuning.history import History
from taskgrid.finetuning.interruption import Scratch, resume
from taskgrid.finetuning.modes.seam import get_mode
from taskgrid.finetuning.others import OtherTasks, opened
from taskgrid.finetuning.recipe import Recipe
from taskgrid.finetuning.training import Training, own_settings
from taskgrid.finetuning.validation import Validation
from taskgrid.machine.progress import Progress
from taskgrid.models.batches import BatchChoice
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head, check_head
from taskgrid.plugins.cards import mode_card, plugin_options
from taskgrid.provenance.digests import derive_seed, digest, digest_bytes
from taskgrid.store.weights import Lineage, State, digest_state

__all__ = ["Finetuned", "OtherTasks", "Samples", "Scratch", "finetune"]


@dataclass(frozen=True)
class Finetuned:
    """An expert.

    Attributes:
        state: theta_t on the CPU; keys, shapes and dtypes of the base.
        factors: the factors that its task vector is a product of (``Trainee.factors``), on the CPU;
            empty where the mode has none.
        history: the curves.
        lineage: what the expert was made from, for its file's header.
        steps: optimiser steps in all.
        seconds: time they took, over all interruptions; validation and saving not counted.
        images: images that trained, each as often as it did.
        pace: ``(step, images per second)`` of the updates up to a validation, since the last one.
    """

    state: State
    factors: State
    history: History
    lineage: Lineage
    steps: int
    seconds: float
    images: int
    pace: tuple[tuple[int, float], ...]


def finetune(
    card: ModelCard,
    base: Mapping[str, torch.Tensor],
    head: Head,
    train: Samples,
    val: Samples | None,
    recipe: Recipe,
    *,
    task: str,
    mode: str = "standard",
    mode_options: Mapping[str, Any] | None = None,
    others: OtherTasks | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    eval_batch_size: BatchChoice = "auto",
    scratch: Scratch | None = None,
    lineage: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Finetuned:
    """Fine-tune an image tower on a task.

    Args:
        card: the base model's card.
        base: theta_0.
        head: the task's frozen head.
        train: training images.
        val: validation images; None skips validation.
        recipe: the recipe, with what the mode and the task change in it.
        task: task name; part of the seed.
        mode: fine-tuning mode; part of the seed.
        mode_options: options of the mode.
        others: images and statistics of the other tasks, for a mode whose card asks for them.
        seed: the experiment's seed; batches, crops and the mode's own draws follow from it.
        device: where to compute.
        eval_batch_size: images per forward pass of a validation; ``auto`` takes what fits. With the
            evaluation's own batch size, the last validation is the expert's row of the grid, bit for
            bit.
        scratch: where to save progress. A checkpoint of the same training is resumed, one of other
            settings is ignored; on SIGTERM the training saves, then ends with exit status 143.
        lineage: entries of the expert's lineage to add (``model``, ``split``, ...); a checkpoint of
            another lineage is not resumed.
        progress: counts steps; the recipe's ``total_steps`` is its total.

    Raises:
        ConfigError: if the recipe does not fit the number of images, mode or options are unknown, or
            the mode reads of the other tasks what is not given.
        DataError: if a label has no class in the head.
        LineageError: if base or head do not belong to the card.
        TrainingError: if the training diverges; names the task, the step and the learning rate. If
            the device's memory does not suffice; says by which setting it would.
    """
    device = torch.device(device)
    _check_inputs(card, base, head, train, val, task)
    total = recipe.total_steps(len(train))
    chosen = get_mode(mode)
    options = plugin_options("mode", mode, mode_options or {})
    made_from: Lineage = {
        "kind": "expert",
        **card.lineage(),
        "head": head.lineage.get("digest", digest_state({"weight": head.weight})),
        **(lineage or {}),
        "task": task,
        "mode": mode,
        "seed": str(seed),
        "recipe": digest(recipe.to_json()),
        "mode_options": digest(dict(options)),
    }
    root = derive_seed("finetune", seed, task, mode)
    wanted = mode_card(mode).others
    head = head.to(device)
    with (
        own_settings(device),
        opened(
            others, wanted, mode=mode, card=card, recipe=recipe, root=root, device=device
        ) as read,
        closing(Feed(train, recipe, root, total, device)) as feed,
    ):
        encoder = ImageEncoder.from_card(card, base)
        trainee = chosen.prepare(encoder, options, derive_seed("mode", root), read).to(device)
        validation = (
            Validation(trainee, head, val, recipe.precision, eval_batch_size, device)
            if val is not None and len(val)
            else None
        )
        run = Training(
            trainee,
            head,
            feed,
            validation,
            recipe,
            total=total,
            period=recipe.eval_every or recipe.steps_per_epoch(len(train)),
            task=task,
            root=root,
            device=device,
        )
        if scratch is None:
            run.advance(progress=progress)
        else:
            sets = [train, *([val] if val is not None else [])]
            if others is not None and "images" in wanted:
                sets += [others.images[name] for name in sorted(others.images)]
            known = {
                name: {other: digest_state(state) for other, state in found.items()}
                for name, found in read.statistics.items()
            }
            identity = digest([_identity(made_from, sets, device), sorted(read.images), known])
            resume(run, scratch, identity, progress)
        trained, factors = trainee.visual_state(), trainee.factors()
        images = feed.images(total)
    # Counters, such as batch norm's number of batches, are no part of theta.
    state = {
        key: trained[key].cpu() if tensor.is_floating_point() else tensor.clone()
        for key, tensor in base.items()
    }
    return Finetuned(
        state,
        {name: tensor.detach().cpu() for name, tensor in factors.items()},
        run.recorder.history(),
        made_from,
        total,
        run.pace.seconds,
        images,
        run.speeds(),
    )


def _identity(made_from: Mapping[str, str], sets: list[Samples], device: torch.device) -> str:
    """Return a digest of what a training depends on, as far as its inputs tell."""
    labels = [digest_bytes(np.array(samples.labels).tobytes()) for samples in sets]
    originals = [
        [list(samples.originals.store.digests), samples.originals.places.tolist()]
        for samples in sets
        if samples.originals is not None
    ]
    return digest([dict(made_from), labels, originals, torch.__version__, device.type])


def _check_inputs(
    card: ModelCard,
    base: Mapping[str, torch.Tensor],
    head: Head,
    train: Samples,
    val: Samples | None,
    task: str,
) -> None:
    check_head(head, card)
    content = digest_state(base)
    if content != card.base:
        raise LineageError(
            f"the base weights have digest {content}, but the model card of {card.architecture} "
            f"{card.pretrained} names {card.base}; rebuild both"
        )
    for name, samples in (("training", train), ("validation", val)):
        if samples is None or not len(samples):
            continue
        low, high = int(samples.labels.min()), int(samples.labels.max())
        if low < 0 or high >= len(head.classes):
            raise DataError(
                f"task {task!r} has {name} label {low if low < 0 else high}, "
                f"but its head has {len(head.classes)} classes (0 to {len(head.classes) - 1})"
            )
