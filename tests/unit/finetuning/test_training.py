"""A training in progress: originals, micro-batches, pace, memory, precision, divergence."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from taskgrid import plugins
from taskgrid.data.preprocess import prepare, whole
from taskgrid.errors import TrainingError
from taskgrid.finetuning import interruption
from taskgrid.finetuning.checkpoint import discard_checkpoint
from taskgrid.finetuning.feed import Batch, Originals
from taskgrid.finetuning.loop import Samples, Scratch
from taskgrid.finetuning.modes.seam import Trainee
from taskgrid.finetuning.training import Training
from taskgrid.models import ImageEncoder
from taskgrid.models.clip import Clip
from taskgrid.store.images import ImageStore, PixelRows, PreparedImage, write_images
from taskgrid.store.originals import Original, OriginalStore, write_originals
from taskgrid.store.weights import digest_state
from tests.unit.example_models import SIZE, tiny_samples
from tests.unit.example_training import SHORT, interrupted_at, resumed, run


def oblong_samples(folder: Path, count: int = 30) -> Samples:
    """Samples of which two in three have an original that is not square."""
    data = tiny_samples(count)
    random = np.random.default_rng(9)
    images = []
    with write_originals(folder / "train.arrow") as writer:
        for row in range(count):
            shape = [(8, 8), (10, 17), (30, 21)][row % 3]
            pixels = random.integers(0, 120, (*shape, 3), dtype=np.uint8)
            pixels[..., data.labels[row]] += 100
            images.append(PreparedImage(f"{row:04d}", 0, "train", f"{row}", prepare(pixels, SIZE)))
            if row % 3:
                writer.add(row, f"{row}", Original(*shape, whole(pixels, SIZE)))
    write_images(folder / "images.arrow", images, SIZE)
    prepared = ImageStore.open(folder / "images.arrow")
    store = OriginalStore.open(folder / "train.arrow")
    rows = np.arange(count)
    return Samples(
        PixelRows(prepared.pixels, rows),
        data.labels,
        Originals(store, store.places(prepared, rows)),
    )


def test_originals_train_and_resume_with_the_same_bits(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = oblong_samples(tmp_path)
    recipe = replace(SHORT, accumulate=2)
    whole_run = run(clip, recipe, data=data)
    prepared = run(clip, recipe, data=replace(data, originals=None))
    assert digest_state(whole_run.state) != digest_state(prepared.state)
    # Nothing is cropped, nothing is looked up.
    uncut = [
        run(clip, replace(recipe, crop_scale=1.0), data=each)
        for each in (data, replace(data, originals=None))
    ]
    assert digest_state(uncut[0].state) == digest_state(uncut[1].state)

    scratch = Scratch(tmp_path / "scratch", every_steps=1)
    with interrupted_at(4):
        run(clip, recipe, data=data, scratch=scratch)
    # Without originals it is another training: the checkpoint is not its own.
    fresh = run(clip, recipe, data=replace(data, originals=None), scratch=scratch)
    assert digest_state(fresh.state) == digest_state(prepared.state)
    discard_checkpoint(scratch.folder)
    again = resumed(clip, recipe, scratch, (4,), data=data)
    assert digest_state(again.state) == digest_state(whole_run.state)
    assert again.history == whole_run.history


def test_no_more_than_a_micro_batch_is_cropped_at_a_time(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def watched(self: Batch, side: int) -> torch.Tensor:
        sizes.append(len(self))
        return cropped(self, side)

    cropped = Batch.cropped
    monkeypatch.setattr(Batch, "cropped", watched)
    run(clip, replace(SHORT, accumulate=4, steps=4), data=oblong_samples(tmp_path))
    # 30 images in batches of 8; the last has 6.
    assert sizes == [2] * 12 + [2] * 3


@pytest.mark.parametrize("mode", ["standard", "lora"])
def test_parts_of_a_batch_have_its_gradient(clip: Clip, tmp_path: Path, mode: str) -> None:
    data = oblong_samples(tmp_path)
    gradients = []
    for accumulate in (1, 2, 8):
        # One step of plain descent on the gradient: Adam would hide its size.
        recipe = replace(SHORT, steps=1, warmup_steps=0, accumulate=accumulate, clip_norm=None)
        expert = run(clip, recipe, data=data, val=None, mode=mode)
        gradients.append(dict(expert.history.curve("train/grad_norm"))[1])
        assert dict(expert.history.curve("train/loss"))[1] > 0
    assert gradients == pytest.approx([gradients[0]] * 3, rel=1e-4)


def test_the_pace_counts_updates_alone(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Training._validate
    update = Training._learn

    def slow_validation(self: Any) -> None:
        time.sleep(0.2)
        validate(self)

    def slow_update(self: Any) -> None:
        time.sleep(0.03)
        update(self)

    def slow_save(*args: Any) -> None:
        time.sleep(0.1)
        save(*args)

    save = interruption.save_checkpoint
    monkeypatch.setattr(Training, "_validate", slow_validation)
    monkeypatch.setattr(Training, "_learn", slow_update)
    monkeypatch.setattr(interruption, "save_checkpoint", slow_save)
    scratch = Scratch(tmp_path / "scratch", every_steps=1)
    recipe = replace(SHORT, steps=6, eval_every=2)
    started = time.perf_counter()
    expert = run(clip, recipe, scratch=scratch)
    everything = time.perf_counter() - started
    # Six updates of 0.03 s, four validations of 0.2 s, six checkpoints of 0.1 s.
    assert 0.18 <= expert.seconds <= everything - 1.4
    # 30 images: batches of 8, 8, 8, 6, 8, 8.
    assert expert.images == 46
    assert [step for step, _ in expert.pace] == [2, 4, 6]
    total = sum(count / speed for count, (_, speed) in zip((16, 14, 16), expert.pace, strict=True))
    assert total == pytest.approx(expert.seconds, rel=0.05)
    # It survives an interruption, and what is done is not counted twice.
    again = run(clip, recipe, scratch=scratch)
    assert again.images == expert.images
    assert again.seconds == pytest.approx(expert.seconds, rel=0.05)
    assert again.pace == expert.pace


def test_pixels_are_read_batch_by_batch(clip: Clip, tmp_path: Path) -> None:
    """A memory map may be larger than memory: no more than a batch of it is ever copied."""
    most = 0

    class Watched(PixelRows):
        def __getitem__(self, index: Any) -> Any:
            nonlocal most
            found = super().__getitem__(index)
            most = max(most, len(found))
            return found

    parts = []
    for seed in (0, 1):
        data = tiny_samples(30, seed=seed)
        parts.append(Samples(Watched(data.pixels, np.arange(30)), data.labels))
    run(clip, data=parts[0], val=parts[1], eval_batch_size=7)
    assert most == 8


class Greedy(Trainee):
    """Fits only so many images at a time."""

    limit: ClassVar = {"train": 3, "eval": 5}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.limit["train" if self.training else "eval"]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(images)


@pytest.mark.parametrize(
    ("accumulate", "limit", "advice"),
    [
        (1, 3, r"8 images at a time; set `accumulate` to 2 or more in the recipe \(a divisor of"),
        (2, 3, r"4 images at a time; set `accumulate` to 4 or more"),
        (8, 0, r"1 images at a time; take a device with more memory, or a smaller model"),
    ],
)
def test_too_little_memory_is_told_with_the_setting_that_helps(
    clip: Clip, monkeypatch: pytest.MonkeyPatch, accumulate: int, limit: int, advice: str
) -> None:
    standard = plugins.load("mode", "standard").MODE
    monkeypatch.setattr(Greedy, "limit", {"train": limit, "eval": 5})
    monkeypatch.setattr(
        type(standard), "prepare", lambda self, encoder, options, seed, others: greedy(encoder)
    )
    with pytest.raises(TrainingError, match=rf"task 'pets' does not fit into .*{advice}"):
        run(clip, replace(SHORT, accumulate=accumulate))


def greedy(encoder: ImageEncoder) -> Trainee:
    encoder.requires_grad_(True)
    return Greedy(encoder)


def test_validation_takes_fewer_images_where_memory_is_short(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(clip, replace(SHORT, accumulate=4))
    standard = plugins.load("mode", "standard").MODE
    monkeypatch.setattr(
        type(standard), "prepare", lambda self, encoder, options, seed, others: greedy(encoder)
    )
    found = run(clip, replace(SHORT, accumulate=4), eval_batch_size=64)
    assert digest_state(found.state) == digest_state(expected.state)
    assert found.history == expected.history


@pytest.mark.parametrize("mode", ["standard", "linear"])
def test_bf16_on_a_cpu_is_bf16_and_leaves_the_weights_in_float32(clip: Clip, mode: str) -> None:
    half = replace(SHORT, precision="bf16")
    found, again, exact = (run(clip, recipe, mode=mode) for recipe in (half, half, SHORT))
    assert digest_state(found.state) == digest_state(again.state)
    assert all(tensor.dtype == torch.float32 for tensor in found.state.values())
    start = clip.visual_state()
    moved, off = (
        sum(float((found.state[key] - other[key]).norm() ** 2) for key in start)
        for other in (start, exact.state)
    )
    assert 0 < off < 0.5 * moved


def test_divergence_is_told_with_task_step_and_rate(clip: Clip) -> None:
    recipe = replace(SHORT, lr=1e30, clip_norm=None, steps=30)
    with pytest.raises(TrainingError) as caught:
        run(clip, recipe)
    message = str(caught.value)
    step = int(message.split("step ")[1].split()[0])
    assert "task 'pets' diverged" in message
    assert 2 <= step <= 5
    assert f"learning rate {recipe.learning_rate(step - 1, 30):.3g}" in message
