"""Fine-tuning an image tower on one task under its frozen head; seeded and resumable.

Every random draw is a function of (seed, task, mode, step), and everything else that a step depends
on is in the checkpoint, so a training that was killed ends, on a CPU, with the very bits of one
that was not.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from taskgrid.errors import DataError, DeviceError, LineageError, TrainingError
from taskgrid.finetuning.checkpoint import (
    Checkpoint,
    load_checkpoint,
    pack_optimiser,
    restore_module,
    save_checkpoint,
    unpack_optimiser,
)
from taskgrid.finetuning.feed import Feed, Samples, resident
from taskgrid.finetuning.history import History, Recorder
from taskgrid.finetuning.modes.seam import Trainee, get_mode
from taskgrid.finetuning.pace import Pace
from taskgrid.finetuning.recipe import Recipe
from taskgrid.machine.progress import Progress
from taskgrid.models.batches import BatchChoice, BatchSize, fitted, passing
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head, check_head
from taskgrid.models.inference import full_float32, iter_features, to_input
from taskgrid.plugins.cards import plugin_options
from taskgrid.provenance.digests import derive_seed, digest, digest_bytes
from taskgrid.store.weights import Lineage, State, digest_state

__all__ = ["Finetuned", "Samples", "Scratch", "finetune"]

_WATCH_STEPS = 20


@dataclass(frozen=True)
class Finetuned:
    """An expert.

    Attributes:
        state: theta_t on the CPU; keys, shapes and dtypes of the base.
        history: the curves.
        lineage: what the expert was made from, for its file's header.
        steps: optimiser steps in all.
        seconds: time they took, over all interruptions; validation and saving not counted.
        images: images that trained, each as often as it did.
        pace: ``(step, images per second)`` of the updates up to a validation, since the last one.
    """

    state: State
    history: History
    lineage: Lineage
    steps: int
    seconds: float
    images: int
    pace: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Scratch:
    """Where and when a training saves its progress.

    Attributes:
        folder: a folder of this training's own.
        every_seconds: time between checkpoints.
        every_steps: also save each time this many steps are done.
    """

    folder: Path
    every_seconds: float = 60.0
    every_steps: int | None = None


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
        recipe: the recipe.
        task: task name; part of the seed.
        mode: fine-tuning mode; part of the seed.
        mode_options: options of the mode.
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
        ConfigError: if the recipe does not fit the number of images, or mode or options are unknown.
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
    trainee = chosen.prepare(
        ImageEncoder.from_card(card, base), options, derive_seed("mode", root)
    ).to(device)
    run = _Run(
        trainee, head.to(device), train, val, recipe, total, task, root, device, eval_batch_size
    )
    with _own_settings(device), closing(run):
        if scratch is None:
            run.advance_to(total, progress=progress)
        else:
            _resumable(run, scratch, _identity(made_from, train, val, device), progress)
    trained = {key: tensor.cpu() for key, tensor in trainee.visual_state().items()}
    # Counters, such as batch norm's number of batches, are no part of theta.
    state = {
        key: trained[key] if tensor.is_floating_point() else tensor.clone()
        for key, tensor in base.items()
    }
    return Finetuned(
        state,
        run.recorder.history(),
        made_from,
        total,
        run.pace.seconds,
        run.images(total),
        run.speeds(),
    )


class _Run:
    """A training in progress."""

    def __init__(
        self,
        trainee: Trainee,
        head: Head,
        train: Samples,
        val: Samples | None,
        recipe: Recipe,
        total: int,
        task: str,
        root: int,
        device: torch.device,
        eval_batch_size: BatchChoice,
    ) -> None:
        self.trainee = trainee
        self.recorder = Recorder(task, recipe, total, device)
        self.step = 0
        self.total = total
        self.pace = Pace(device)
        self._task = task
        self._head = head
        self._feed = Feed(train, recipe, root, total, device)
        self._val = _placed(val, device) if val is not None and len(val) else None
        self._recipe = recipe
        self._root = root
        self._device = device
        self._asked = eval_batch_size
        self._period = recipe.eval_every or recipe.steps_per_epoch(len(train))
        parameters = trainee.trained()
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )

    def advance_to(
        self,
        stop: int,
        *,
        progress: Progress | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """Train until ``stop`` steps are done; call ``after_step`` when each is complete."""
        if self.step == 0:
            self._validate()
        with self.pace.running():
            while self.step < stop:
                self._update()
                self.step += 1
                last = self.step == self.total
                if self.step % _WATCH_STEPS == 0 or last:
                    self.recorder.check(self.step)
                if last or self.step % self._period == 0:
                    with self.pace.resting():
                        self.pace.mark(self.step)
                        self._validate()
                if progress is not None:
                    if self.step % _WATCH_STEPS == 0 or last:
                        progress.note(**self.recorder.latest())
                    progress.advance(1)
                if after_step is not None:
                    after_step()

    def close(self) -> None:
        """Stop reading ahead."""
        self._feed.close()

    def images(self, step: int) -> int:
        """Return how many images ``step`` updates train on."""
        return self._feed.images(step)

    def speeds(self) -> tuple[tuple[int, float], ...]:
        """Return the images per second up to each mark of the pace, since the mark before."""
        marks = [(0, 0.0), *self.pace.curve()]
        return tuple(
            (step, (self.images(step) - self.images(before)) / max(end - start, 1e-9))
            for (before, start), (step, end) in itertools.pairwise(marks)
        )

    def checkpoint(self) -> Checkpoint:
        """Return the training as it stands; refuses one that has diverged."""
        self.recorder.check(self.step)
        return Checkpoint(
            self.step,
            self.pace.seconds,
            dict(self.trainee.state_dict()),
            pack_optimiser(self._optimiser, self._names),
            {**self.recorder.pack(self.step), "pace": self.pace.pack()},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        self.step = checkpoint.step
        self.pace.restore(checkpoint.seconds, checkpoint.curves.get("pace", torch.empty(0, 2)))
        restore_module(self.trainee, checkpoint.module)
        unpack_optimiser(self._optimiser, self._names, checkpoint.optimiser)
        self.recorder.restore(checkpoint.curves)

    def _update(self) -> None:
        try:
            self._learn()
        except torch.OutOfMemoryError as error:
            raise TrainingError(self._too_large()) from error

    def _learn(self) -> None:
        recipe, step = self._recipe, self.step
        batch = self._feed.batch(step)
        # For modules that draw by themselves (dropout).
        _seed_global(derive_seed("module", self._root, step), self._device)
        self.trainee.train()
        self._optimiser.param_groups[0]["lr"] = recipe.learning_rate(step, self.total)
        self._optimiser.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self._device)
        card = self.trainee.card
        for part in batch.parts(recipe.batch_size // recipe.accumulate):
            images = to_input(part.cropped(card.image_size), card.mean, card.std)
            # Sums over the micro-batch, divided by the whole batch: the gradient of the batch's mean.
            share = self._loss(images, part.labels) / len(batch)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
        limit = recipe.clip_norm if recipe.clip_norm is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        self._optimiser.step()
        self.recorder.train(step, loss, norm)

    def _too_large(self) -> str:
        recipe = self._recipe
        more = range(recipe.accumulate + 1, recipe.batch_size + 1)
        fits = next((n for n in more if recipe.batch_size % n == 0), None)
        advice = (
            f"set `accumulate` to {fits} or more in the recipe (a divisor of batch_size "
            f"{recipe.batch_size}; the result differs by rounding alone)"
            if fits
            else "take a device with more memory, or a smaller model"
        )
        return (
            f"fine-tuning on task {self._task!r} does not fit into the memory of {self._device} with "
            f"{recipe.batch_size // recipe.accumulate} images at a time; {advice}"
        )

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        half = self._recipe.precision == "bf16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half):
            features = self.trainee(images)
        return functional.cross_entropy(
            self._head.logits(features.float()),
            labels,
            label_smoothing=self._recipe.label_smoothing,
            reduction="sum",
        )

    def _validate(self) -> None:
        if self._val is None:
            return
        # Frozen, as the grid is evaluated: the last bits depend on it (see ImageEncoder).
        _let_train(self._parameters, False)
        val = self._val
        try:
            correct = self._batch_size.fit(lambda size: self._correct(val, size))
        except DeviceError as error:
            raise TrainingError(self._too_large()) from error
        _let_train(self._parameters, True)
        self.recorder.val(self.step, correct / len(val))

    @cached_property
    def _batch_size(self) -> BatchSize:
        probe = passing(self.trainee, self._device, self._recipe.precision)
        return fitted(self._asked, self._device, probe, halved=lambda size: "")

    def _correct(self, val: Samples, batch_size: int) -> int:
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        labels = torch.as_tensor(np.array(val.labels), dtype=torch.int64).to(self._device)
        start = 0
        for features in iter_features(
            self.trainee,
            val.pixels,
            batch_size=batch_size,
            device=self._device,
            precision=self._recipe.precision,
        ):
            truth = labels[start : start + len(features)]
            correct += (self._head.logits(features).argmax(dim=1) == truth).sum()
            start += len(features)
        return int(correct)


def _placed(samples: Samples, device: torch.device) -> Samples:
    return Samples(resident(samples.pixels, device), samples.labels)


def _resumable(run: _Run, scratch: Scratch, identity: str, progress: Progress | None) -> None:
    found = load_checkpoint(scratch.folder, identity)
    if found is not None:
        run.restore(found)
        if progress is not None:
            progress.advance(found.step)
    saved_at, saved_step = time.monotonic(), run.step

    def save() -> None:
        nonlocal saved_at, saved_step
        with run.pace.resting():
            save_checkpoint(scratch.folder, run.checkpoint(), identity)
        saved_at, saved_step = time.monotonic(), run.step

    with _terminated() as terminated:

        def after_step() -> None:
            due = time.monotonic() - saved_at >= scratch.every_seconds
            if scratch.every_steps is not None:
                due = due or run.step - saved_step >= scratch.every_steps
            if due or terminated() or run.step == run.total:
                save()
            if terminated():
                raise SystemExit(128 + signal.SIGTERM)

        run.advance_to(run.total, progress=progress, after_step=after_step)


def _identity(
    made_from: Mapping[str, str], train: Samples, val: Samples | None, device: torch.device
) -> str:
    labels = [digest_bytes(np.array(s.labels).tobytes()) for s in (train, val) if s is not None]
    parts: list[Any] = [dict(made_from), labels, torch.__version__, device.type]
    if train.originals is not None:
        parts.append([list(train.originals.store.digests), train.originals.places.tolist()])
    return digest(parts)


@contextmanager
def _terminated() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGTERM only raises a flag; signals belong to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_settings(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), full_float32():
        yield


def _let_train(parameters: Iterable[torch.nn.Parameter], train: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(train)


def _seed_global(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


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
