"""A training in progress: update after update, validated, recorded, and ready to be saved at any step.

Every random draw is a function of (seed, task, mode, step), and everything else that a step depends
on is in the checkpoint, so a training that was killed ends, on a CPU, with the very bits of one
that was not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.nn import functional

from taskgrid.errors import DeviceError, TrainingError
from taskgrid.finetuning.checkpoint import Checkpoint
from taskgrid.finetuning.feed import Feed
from taskgrid.finetuning.history import Recorder
from taskgrid.finetuning.modes.seam import Trainee
from taskgrid.finetuning.optimiser import Optimiser
from taskgrid.finetuning.recipe import Recipe
from taskgrid.finetuning.validation import Validation
from taskgrid.machine.progress import Progress
from taskgrid.machine.timing import Pace
from taskgrid.models.heads import Head
from taskgrid.models.inference import full_float32
from taskgrid.provenance.digests import derive_seed

_WATCH_STEPS = 20


class Training:
    """Trains a trainee under a frozen head.

    Args:
        trainee: what trains, on the device.
        head: the task's head, on the device.
        feed: its batches.
        validation: what is validated; None validates nothing.
        recipe: the recipe.
        total: steps in all.
        period: steps between validations.
        task: task name, for messages.
        root: the seed from which the draws of every step follow.
        device: where to compute.
    """

    def __init__(
        self,
        trainee: Trainee,
        head: Head,
        feed: Feed,
        validation: Validation | None,
        recipe: Recipe,
        *,
        total: int,
        period: int,
        task: str,
        root: int,
        device: torch.device,
    ) -> None:
        self.trainee = trainee
        self.recorder = Recorder(task, recipe, total, device)
        self.step = 0
        self.total = total
        cuda = device.type == "cuda"
        self.pace = Pace(partial(torch.cuda.synchronize, device)) if cuda else Pace()
        self._head = head
        self._feed = feed
        self._validation = validation
        self._recipe = recipe
        self._period = period
        self._task = task
        self._root = root
        self._device = device
        self._optimiser = Optimiser(trainee.trained(), recipe, total)

    def advance(
        self, *, progress: Progress | None = None, after_step: Callable[[], None] | None = None
    ) -> None:
        """Train to the end; call ``after_step`` when a step is complete."""
        if self.step == 0:
            self._validate()
        with self.pace.running():
            while self.step < self.total:
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
                        progress.points(self.recorder.newest())
                    progress.advance(1)
                if after_step is not None:
                    after_step()

    def speeds(self) -> tuple[tuple[int, float], ...]:
        """Return the images per second up to each mark of the pace, since the mark before."""
        images = self._feed.images
        return tuple(
            (step, (images(step) - images(before)) / max(end - start, 1e-9))
            for (before, start), (step, end) in itertools.pairwise([(0, 0.0), *self.pace.marks])
        )

    def checkpoint(self) -> Checkpoint:
        """Return the training as it stands; refuses one that has diverged."""
        self.recorder.check(self.step)
        return Checkpoint(
            self.step,
            self.pace.seconds,
            dict(self.trainee.state_dict()),
            self._optimiser.pack(),
            {
                **self.recorder.pack(self.step),
                "pace": torch.tensor(self.pace.marks, dtype=torch.float64).reshape(-1, 2),
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        self.step = checkpoint.step
        self.pace.seconds = checkpoint.seconds
        self.pace.marks = [(int(step), at) for step, at in checkpoint.curves["pace"].tolist()]
        self.trainee.load_state_dict(checkpoint.module, strict=True)
        self._optimiser.restore(checkpoint.optimiser)
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
        self._optimiser.begin(step)
        loss = torch.zeros((), device=self._device)
        for part in batch.parts(recipe.batch_size // recipe.accumulate):
            images = part.prepared(self.trainee.card)
            # Sums over the micro-batch, divided by the whole batch: the gradient of the batch's mean.
            share = self._loss(images, part.labels) / len(batch)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
        with self._precision():
            penalty = self.trainee.penalty(step)
        if penalty is not None:
            penalty.backward()  # type: ignore[no-untyped-call]
            penalty = penalty.detach()
            loss += penalty
        self.recorder.train(step, loss, self._optimiser.update(), penalty)

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with self._precision():
            features = self.trainee(images)
        return functional.cross_entropy(
            self._head.logits(features.float()),
            labels,
            label_smoothing=self._recipe.label_smoothing,
            reduction="sum",
        )

    def _precision(self) -> torch.autocast:
        half = self._recipe.precision == "bf16"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half)

    def _validate(self) -> None:
        if self._validation is None:
            return
        try:
            with self._optimiser.resting():
                accuracy = self._validation.accuracy()
        except DeviceError as error:
            raise TrainingError(self._too_large()) from error
        self.recorder.val(self.step, accuracy)

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


@contextmanager
def own_settings(device: torch.device) -> Iterator[None]:
    """Within the block, draws and precision switches are the training's own; then as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), full_float32():
        yield


def _seed_global(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
