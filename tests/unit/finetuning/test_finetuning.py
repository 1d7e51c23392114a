"""Fine-tuning: recipe, augmentation, the loop, its seeds, its modes, and being killed."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from taskgrid import plugins
from taskgrid.data.preprocess import prepare, whole
from taskgrid.errors import ConfigError, DataError, LineageError, TrainingError
from taskgrid.finetuning import loop
from taskgrid.finetuning.augment import random_resized_crop
from taskgrid.finetuning.checkpoint import discard_checkpoint
from taskgrid.finetuning.feed import Batch, Order, Originals
from taskgrid.finetuning.loop import Finetuned, Samples, Scratch, finetune
from taskgrid.finetuning.modes.seam import Trainee, get_mode, train_only
from taskgrid.finetuning.recipe import Recipe
from taskgrid.machine.progress import Progress
from taskgrid.models import ImageEncoder
from taskgrid.models.clip import Clip
from taskgrid.models.inference import logits_of, to_input
from taskgrid.models.layout import part_of
from taskgrid.plugins.options import Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.images import ImageStore, PixelRows, PreparedImage, write_images
from taskgrid.store.originals import Original, OriginalStore, write_originals
from taskgrid.store.weights import State, digest_state, load_state, read_lineage
from tests.unit.example_models import SIZE, tiny_clip, tiny_head, tiny_samples
from tests.unit.killed_training import STEPS, outcome, train

SHORT = Recipe(steps=6, batch_size=8, warmup_steps=2, lr=1e-2)
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are so small that a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return tiny_clip(tmp_path)


def run(clip: Clip, recipe: Recipe = SHORT, **options: Any) -> Finetuned:
    settings: dict[str, Any] = {"task": "pets", **options}
    data = settings.pop("data", tiny_samples(30))
    val = settings.pop("val", tiny_samples(20, seed=1))
    return finetune(
        clip.card(), clip.visual_state(), tiny_head(clip), data, val, recipe, **settings
    )


# ------------------------------------------------------------------------------------- recipe


def test_learning_rate_warms_up_linearly_then_decays_as_a_cosine() -> None:
    recipe = Recipe(steps=2000)
    rates = [recipe.learning_rate(step, 2000) for step in range(2000)]
    assert rates[0] == pytest.approx(1e-5 / 500)
    assert rates[249] == pytest.approx(0.5e-5)
    assert rates[499] == rates[500] == 1e-5
    assert rates[1250] == pytest.approx(0.5e-5)
    assert rates[1999] == pytest.approx(1e-5 * 0.5 * (1 + math.cos(math.pi * 1499 / 1500)))
    assert all(a >= b for a, b in itertools.pairwise(rates[500:]))


def test_recipe_counts_steps_as_the_papers_do() -> None:
    # protocol.md 2.1: 55,000 MNIST images, 5 epochs of 128: 2,150 steps; DTD: 3,384, 76 epochs.
    assert Recipe(epochs=5).total_steps(55_000) == 2150
    assert Recipe(epochs=76).total_steps(3_384) == 2052
    assert Recipe(steps=77, warmup_steps=0).total_steps(10) == 77


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "steps. or .epochs"),
        ({"steps": 5, "epochs": 5}, "not both"),
        ({"steps": 0}, r"recipe\.steps is 0"),
        ({"steps": 5, "batch_size": 10, "accumulate": 3}, "accumulate 3 does not divide"),
        ({"steps": 5, "lr": -1.0}, r"recipe\.lr is -1\.0"),
        ({"steps": 5, "crop_scale": 1.5}, r"crop_scale is 1\.5"),
        ({"steps": 5, "momentum": 0.9}, "unknown key 'recipe.momentum'"),
    ],
)
def test_impossible_recipes_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Recipe.from_mapping(values)


def test_a_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_steps 500 leaves nothing of 80 steps"):
        Recipe(steps=80).total_steps(100)
    with pytest.raises(ConfigError, match="no training images"):
        Recipe(steps=80).total_steps(0)


# ------------------------------------------------------------------------------------- learning


def reference(clip: Clip, recipe: Recipe, data: Samples, seed: int) -> tuple[State, list[float]]:
    """The papers' loop written out: autograd, AdamW and clipping by hand, in order."""
    card, head = clip.card(), tiny_head(clip)
    encoder = ImageEncoder.from_card(card, clip.visual_state())
    encoder.requires_grad_(True)
    weights = dict(encoder.tower.named_parameters())
    first = {n: torch.zeros_like(p) for n, p in weights.items()}
    second = {n: torch.zeros_like(p) for n, p in weights.items()}
    total = recipe.total_steps(len(data))
    per_epoch = math.ceil(len(data) / recipe.batch_size)
    root = derive_seed("finetune", seed, "pets", "standard")
    losses = []
    for step in range(total):
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(
            len(data),
            generator=torch.Generator().manual_seed(derive_seed("order", root, epoch)),
        )
        chosen = order[place * recipe.batch_size : (place + 1) * recipe.batch_size].numpy()
        crops = torch.Generator().manual_seed(derive_seed("crop", root, step))
        pixels = random_resized_crop(torch.tensor(data.pixels[chosen]), recipe.crop_scale, crops)
        features = encoder(to_input(pixels, card.mean, card.std))
        features = features / features.norm(dim=-1, keepdim=True)
        loss = nn.functional.cross_entropy(
            features @ head.weight.T, torch.tensor(data.labels[chosen])
        )
        losses.append(loss.item())
        gradients = dict(
            zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True)
        )
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients.values()))
        shrink = min(1.0, (recipe.clip_norm or math.inf) / (norm + 1e-6))
        rate = recipe.learning_rate(step, total)
        with torch.no_grad():
            for name, weight in weights.items():
                gradient = gradients[name] * shrink
                weight.mul_(1 - rate * recipe.weight_decay)
                first[name].mul_(0.9).add_(gradient, alpha=0.1)
                second[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                mean = first[name] / (1 - 0.9 ** (step + 1))
                spread = (second[name] / (1 - 0.999 ** (step + 1))).sqrt()
                weight.sub_(rate * mean / (spread + 1e-8))
    return encoder.state(), losses


def test_the_loop_is_the_papers(clip: Clip) -> None:
    recipe = replace(SHORT, steps=9, lr=1e-3, clip_norm=0.5)
    data = tiny_samples(30)
    expert = run(clip, recipe, data=data, seed=3)
    state, losses = reference(clip, recipe, data, seed=3)
    measured = [value for _, value in expert.history.curve("train/loss")]
    assert measured == pytest.approx(losses, rel=1e-4)
    base = clip.visual_state()
    for name, tensor in state.items():
        moved = (tensor - base[name]).norm()
        assert (expert.state[name] - tensor).norm() <= 2e-2 * moved + 1e-6
    assert [step for step, _ in expert.history.curve("train/loss")] == list(range(1, 10))
    rates = [value for _, value in expert.history.curve("train/lr")]
    assert rates == [recipe.learning_rate(step, 9) for step in range(9)]


def test_the_expert_learns_and_its_accuracy_is_the_experts(clip: Clip) -> None:
    recipe = Recipe(epochs=6, batch_size=16, warmup_steps=5, lr=1e-2)
    val = tiny_samples(60, seed=1)
    expert = run(clip, recipe, data=tiny_samples(150), val=val)
    curve = expert.history.curve("val/accuracy")
    assert [step for step, _ in curve] == [0, 10, 20, 30, 40, 50, 60]
    assert curve[-1][1] > 0.9 > 0.7 > curve[0][1]
    head = tiny_head(clip)
    for state, measured in ((clip.visual_state(), curve[0][1]), (expert.state, curve[-1][1])):
        encoder = ImageEncoder.from_card(clip.card(), state)
        right = logits_of(encoder, head, val.pixels).argmax(1).numpy() == val.labels
        assert right.mean() == measured
    assert expert.steps == 60
    assert expert.seconds > 0


def test_every_parameter_moves_and_keeps_its_dtype(clip: Clip) -> None:
    base = clip.visual_state()
    expert = run(clip)
    assert {n: (t.shape, t.dtype) for n, t in expert.state.items()} == {
        n: (t.shape, t.dtype) for n, t in base.items()
    }
    # The key bias (rows d to 2d) has no gradient, only decay; all the rest moves.
    for name, tensor in expert.state.items():
        assert not torch.equal(tensor, base[name]), name


def test_inputs_and_global_random_state_are_left_alone(clip: Clip) -> None:
    base, head, data = clip.visual_state(), tiny_head(clip), tiny_samples(30)
    before = digest_state(base), digest_state({"w": head.weight}), data.pixels.copy()
    random = torch.get_rng_state()
    finetune(clip.card(), base, head, data, None, SHORT, task="pets")
    assert (digest_state(base), digest_state({"w": head.weight})) == before[:2]
    assert np.array_equal(data.pixels, before[2])
    assert torch.equal(torch.get_rng_state(), random)


def test_seeds_are_real(clip: Clip) -> None:
    first = run(clip)
    torch.manual_seed(12345)
    again = run(clip)
    assert digest_state(first.state) == digest_state(again.state)
    assert first.history == again.history
    for other in (run(clip, seed=1), run(clip, task="cats")):
        assert digest_state(other.state) != digest_state(first.state)


def test_each_epoch_has_its_own_order() -> None:
    order = Order(root=7, count=50)
    epochs = [
        torch.cat([order.batch(epoch, place, 20) for place in range(3)]) for epoch in range(3)
    ]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(50))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    # A walk that begins in the middle sees the same.
    assert torch.equal(Order(root=7, count=50).batch(2, 1, 20), epochs[2][20:40])


def test_accumulation_changes_only_the_rounding(clip: Clip) -> None:
    # 30 images in batches of 8: the last batch of an epoch has 6, split 4 + 2.
    whole = run(clip, replace(SHORT, lr=1e-3))
    parts = run(clip, replace(SHORT, lr=1e-3, accumulate=2))
    left, right = (dict(r.history.curve("train/loss")) for r in (whole, parts))
    assert left == pytest.approx(right, rel=1e-4)
    left, right = (dict(r.history.curve("train/grad_norm")) for r in (whole, parts))
    assert left == pytest.approx(right, rel=1e-3)


def test_label_smoothing_and_clipping_reach_the_loss(clip: Clip) -> None:
    plain, smooth = run(clip), run(clip, replace(SHORT, label_smoothing=0.2))
    data, head = tiny_samples(30), tiny_head(clip)
    root = derive_seed("finetune", 0, "pets", "standard")
    order = torch.randperm(
        30, generator=torch.Generator().manual_seed(derive_seed("order", root, 0))
    )
    pixels = random_resized_crop(
        torch.tensor(data.pixels[order[:8].numpy()]),
        0.9,
        torch.Generator().manual_seed(derive_seed("crop", root, 0)),
    )
    encoder = ImageEncoder.from_card(clip.card(), clip.visual_state())
    logits = logits_of(encoder, head, pixels).double()
    surprise = -logits.log_softmax(1)
    truth = surprise[torch.arange(8), torch.tensor(data.labels[order[:8].numpy()])]
    mixed = (0.8 * truth + 0.2 * surprise.mean(1)).mean()
    assert plain.history.curve("train/loss")[0][1] == pytest.approx(float(truth.mean()), rel=1e-4)
    assert smooth.history.curve("train/loss")[0][1] == pytest.approx(float(mixed), rel=1e-4)
    clipped = run(clip, replace(SHORT, clip_norm=1e-6))
    assert digest_state(clipped.state) != digest_state(plain.state)
    # The recorded norm is that before clipping.
    norms = [dict(r.history.curve("train/grad_norm"))[1] for r in (plain, clipped)]
    assert norms[0] == norms[1] > 1e-3


def test_rows_of_a_store_train_like_a_copy_of_them(clip: Clip) -> None:
    data = tiny_samples(60)
    rows = np.random.default_rng(5).permutation(60)[:30]
    copied = Samples(data.pixels[rows], data.labels[rows])
    viewed = Samples(PixelRows(data.pixels, rows), data.labels[rows])
    assert digest_state(run(clip, data=copied).state) == digest_state(run(clip, data=viewed).state)


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
    update = loop._Run._update

    def faulty(self: Any) -> None:
        if self.step == 4:
            raise KeyboardInterrupt
        update(self)

    monkeypatch.setattr(loop._Run, "_update", faulty)
    with pytest.raises(KeyboardInterrupt):
        run(clip, recipe, data=data, scratch=scratch)
    monkeypatch.setattr(loop._Run, "_update", update)
    # Without originals it is another training: the checkpoint is not its own.
    fresh = run(clip, recipe, data=replace(data, originals=None), scratch=scratch)
    assert digest_state(fresh.state) == digest_state(prepared.state)
    discard_checkpoint(scratch.folder)
    monkeypatch.setattr(loop._Run, "_update", faulty)
    with pytest.raises(KeyboardInterrupt):
        run(clip, recipe, data=data, scratch=scratch)
    monkeypatch.setattr(loop._Run, "_update", update)
    resumed = run(clip, recipe, data=data, scratch=scratch)
    assert digest_state(resumed.state) == digest_state(whole_run.state)
    assert resumed.history == whole_run.history


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


@pytest.mark.parametrize("mode", ["standard", "low_rank"])
@pytest.mark.usefixtures("more_modes")
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
    validate = loop._Run._validate
    update = loop._Run._learn

    def slow_validation(self: Any) -> None:
        time.sleep(0.2)
        validate(self)

    def slow_update(self: Any) -> None:
        time.sleep(0.03)
        update(self)

    def slow_save(*args: Any) -> None:
        time.sleep(0.1)
        save(*args)

    save = loop.save_checkpoint
    monkeypatch.setattr(loop._Run, "_validate", slow_validation)
    monkeypatch.setattr(loop._Run, "_learn", slow_update)
    monkeypatch.setattr(loop, "save_checkpoint", slow_save)
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
        type(standard), "prepare", lambda self, encoder, options, seed: greedy(encoder)
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
        type(standard), "prepare", lambda self, encoder, options, seed: greedy(encoder)
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


def test_data_and_lineage_that_do_not_fit_are_refused(clip: Clip, tmp_path: Path) -> None:
    data = tiny_samples(30)
    wrong = Samples(data.pixels, data.labels + 2)
    with pytest.raises(DataError, match=r"training label 4, but its head has 3 classes"):
        run(clip, data=wrong)
    with pytest.raises(DataError, match=r"validation label -1"):
        run(clip, val=Samples(data.pixels, data.labels - 1))
    other = tiny_clip(tmp_path, tag="s1", seed=1)
    with pytest.raises(LineageError, match="another text tower"):
        finetune(clip.card(), clip.visual_state(), tiny_head(other), data, None, SHORT, task="pets")
    with pytest.raises(LineageError, match=f"{other.visual_digest}.*{clip.visual_digest}"):
        finetune(clip.card(), other.visual_state(), tiny_head(clip), data, None, SHORT, task="pets")
    with pytest.raises(ConfigError, match=r"unknown fine-tuning mode 'standart'.*'standard'"):
        run(clip, mode="standart")
    with pytest.raises(ConfigError, match="mode 'standard' has no option 'rank'"):
        run(clip, mode_options={"rank": 4})


def test_lineage_names_what_the_expert_was_made_from(clip: Clip) -> None:
    lineage = run(clip, seed=5, lineage={"split": "abc", "model": "m"}).lineage
    assert all(isinstance(value, str) for value in lineage.values())
    expected = {"kind": "expert", "task": "pets", "mode": "standard", "seed": "5", "split": "abc"}
    assert expected.items() <= lineage.items()
    assert clip.card().lineage().items() <= lineage.items()
    assert lineage["recipe"] != run(clip, replace(SHORT, lr=1e-4)).lineage["recipe"]


def test_progress_counts_steps(clip: Clip, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("finetune pets", 6, unit="step", stream=sys.stdout) as progress:
        run(clip, progress=progress)
    assert "finetune pets: 6/6 step" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------- modes


class Attention:
    """Jin et al.: the attention modules alone. What a later mode would look like."""

    name = "attention"
    Options: type[Options] = Options

    def prepare(self, encoder: ImageEncoder, options: Options, seed: int) -> Trainee:
        return train_only(encoder, lambda key: part_of(key) == "attention")


class LowRankTrainee(Trainee):
    """proj + B A: added parameters, another forward, multiplied out at the end."""

    def __init__(self, encoder: ImageEncoder, seed: int) -> None:
        super().__init__(encoder)
        rows, columns = encoder.tower.proj.shape
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(torch.randn(2, columns, generator=generator))
        self.b = nn.Parameter(torch.zeros(rows, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        proj = self.encoder.tower.proj + self.b @ self.a
        return torch.func.functional_call(self.encoder, {"tower.proj": proj}, (images,))

    def visual_state(self) -> State:
        state = self.encoder.state()
        with torch.no_grad():
            state["proj"] += self.b @ self.a
        return state


class LowRank(Attention):
    name = "low_rank"

    def prepare(self, encoder: ImageEncoder, options: Options, seed: int) -> Trainee:
        return LowRankTrainee(encoder, seed)


class Nothing(Attention):
    name = "nothing"

    def prepare(self, encoder: ImageEncoder, options: Options, seed: int) -> Trainee:
        return Trainee(encoder)


@pytest.fixture
def more_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {mode.name: SimpleNamespace(MODE=mode()) for mode in (Attention, LowRank, Nothing)}
    standard = plugins.load("mode", "standard")
    monkeypatch.setattr(plugins, "load", lambda kind, name: known.get(name, standard))


@pytest.mark.usefixtures("more_modes")
def test_a_mode_chooses_what_trains(clip: Clip) -> None:
    base, expert = clip.visual_state(), run(clip, mode="attention").state
    moved = {name for name in base if not torch.equal(base[name], expert[name])}
    assert moved == {name for name in base if part_of(name) == "attention"}


@pytest.mark.usefixtures("more_modes")
def test_a_mode_may_add_parameters_and_change_the_forward(clip: Clip) -> None:
    val = tiny_samples(40, seed=2)
    base, expert = clip.visual_state(), run(clip, mode="low_rank", val=val)
    moved = {name for name in base if not torch.equal(base[name], expert.state[name])}
    assert moved == {"proj"}
    delta = expert.state["proj"] - base["proj"]
    assert torch.linalg.matrix_rank(delta, rtol=1e-3) == 2
    encoder = ImageEncoder.from_card(clip.card(), expert.state)
    right = logits_of(encoder, tiny_head(clip), val.pixels).argmax(1).numpy() == val.labels
    assert right.mean() == pytest.approx(expert.history.curve("val/accuracy")[-1][1], abs=0.03)


@pytest.mark.usefixtures("more_modes")
def test_a_mode_that_trains_nothing_is_refused(clip: Clip) -> None:
    with pytest.raises(TrainingError, match="trains no parameter"):
        run(clip, mode="nothing")


def test_modes_are_found_by_name() -> None:
    assert get_mode("standard").name == "standard"


def test_sine_position_codes_never_train(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    card = clip.card()
    vision = card.tower["vision_cfg"] | {"pos_embed_type": "sin_cos_2d"}
    card = replace(card, tower={**card.tower, "vision_cfg": vision})
    encoder = ImageEncoder.from_card(card, clip.visual_state())
    trained = get_mode("standard").prepare(encoder, Options(), 0).trained()
    names = {name.removeprefix("encoder.tower.") for name in trained}
    assert names == set(clip.visual_state()) - {"positional_embedding"}


# -------------------------------------------------------------------------------- interruptions


@pytest.mark.usefixtures("more_modes")
@pytest.mark.parametrize("mode", ["standard", "low_rank"])
def test_an_interrupted_training_ends_with_the_same_bits(
    clip: Clip, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SHORT, steps=20, eval_every=3)
    scratch = Scratch(tmp_path / "scratch", every_steps=4)
    whole = run(clip, recipe, mode=mode)
    update = loop._Run._update

    def stop_at(limit: int) -> None:
        def faulty(self: Any) -> None:
            if self.step == limit:
                raise KeyboardInterrupt
            update(self)

        monkeypatch.setattr(loop._Run, "_update", faulty)

    for limit in (2, 9, 13, 16):
        stop_at(limit)
        with pytest.raises(KeyboardInterrupt):
            run(clip, recipe, mode=mode, scratch=scratch)
    _, header = load_state(scratch.folder / "checkpoint.safetensors")
    assert header["step"] == "16"
    monkeypatch.setattr(loop._Run, "_update", update)
    resumed = run(clip, recipe, mode=mode, scratch=scratch)
    assert digest_state(resumed.state) == digest_state(whole.state)
    assert resumed.history == whole.history
    # What is finished is not trained again.
    stop_at(0)
    again = run(clip, recipe, mode=mode, scratch=scratch)
    assert digest_state(again.state) == digest_state(whole.state)
    assert again.history == whole.history
    discard_checkpoint(scratch.folder)
    with pytest.raises(KeyboardInterrupt):
        run(clip, recipe, mode=mode, scratch=scratch)


def test_checkpoints_of_other_settings_are_not_resumed(clip: Clip, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")
    expected = run(clip, seed=2)
    for other in (
        lambda: run(clip, scratch=scratch),
        lambda: run(clip, replace(SHORT, lr=2e-2), seed=2, scratch=scratch),
        lambda: run(clip, seed=2, lineage={"split": "other"}, scratch=scratch),
        lambda: run(clip, seed=2, data=tiny_samples(29), scratch=scratch),
    ):
        other()
        assert digest_state(run(clip, seed=2, scratch=scratch).state) == digest_state(
            expected.state
        )


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_is_as_good_as_none(clip: Clip, tmp_path: Path, damage: str) -> None:
    scratch = Scratch(tmp_path / "scratch")
    expected = run(clip, scratch=scratch)
    path = scratch.folder / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    path.write_bytes({"truncate": content[:-100], "flip": content, "empty": b""}[damage])
    again = run(clip, scratch=scratch)
    assert digest_state(again.state) == digest_state(expected.state)
    assert again.history == expected.history


def test_a_diverged_training_is_not_saved(clip: Clip, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch", every_steps=1)
    with pytest.raises(TrainingError):
        run(clip, replace(SHORT, lr=1e30, clip_norm=None), scratch=scratch)
    state, _ = load_state(scratch.folder / "checkpoint.safetensors")
    assert all(
        torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point()
    )


def _spawn(model: Path, scratch: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.killed_training", str(model), str(scratch)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
    )


def _wait_for_step(process: subprocess.Popen[bytes], scratch: Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the training ended before it could be killed"
        if _saved_step(scratch) >= step:
            return
        time.sleep(0.01)
    raise AssertionError("the training never came so far")


def _saved_step(scratch: Path) -> int:
    path = scratch / "checkpoint.safetensors"
    return int(read_lineage(path)["step"]) if path.exists() else 0


def test_killed_and_terminated_trainings_end_with_the_same_bits(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    scratch = tmp_path / "scratch"
    killed = _spawn(tmp_path, scratch)
    _wait_for_step(killed, scratch, 5)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    at_kill = _saved_step(scratch)

    asked = _spawn(tmp_path, scratch)
    _wait_for_step(asked, scratch, at_kill + 3)
    asked.send_signal(signal.SIGTERM)
    assert asked.wait() == 143
    assert at_kill < _saved_step(scratch) < STEPS

    assert outcome(train(tmp_path, scratch)) == outcome(train(tmp_path, None))
    assert [path.name for path in scratch.iterdir()] == ["checkpoint.safetensors"]
