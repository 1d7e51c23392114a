"""The loop is the papers': what is learnt, from which draws, and what is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from taskgrid.errors import ConfigError, DataError, LineageError
from taskgrid.finetuning.feed import Order
from taskgrid.finetuning.loop import Samples, finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.machine.progress import Progress
from taskgrid.models import ImageEncoder
from taskgrid.models.clip import Clip
from taskgrid.models.inference import logits_of
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.images import PixelRows
from taskgrid.store.weights import State, digest_state
from tests.unit.example_models import tiny_clip, tiny_head, tiny_samples
from tests.unit.example_training import SHORT, descend, drawn, run


def reference(clip: Clip, recipe: Recipe, data: Samples, seed: int) -> tuple[State, list[float]]:
    """The papers' loop written out: autograd, AdamW and clipping by hand, in order."""
    card, head = clip.card(), tiny_head(clip)
    encoder = ImageEncoder.from_card(card, clip.visual_state())
    encoder.requires_grad_(True)
    weights = dict(encoder.tower.named_parameters())
    root = derive_seed("finetune", seed, "pets", "standard")
    losses = []

    def gradients(step: int) -> dict[str, torch.Tensor]:
        images, labels = drawn(data, card, recipe, root, step)
        features = encoder(images)
        features = features / features.norm(dim=-1, keepdim=True)
        loss = nn.functional.cross_entropy(features @ head.weight.T, labels)
        losses.append(loss.item())
        found = torch.autograd.grad(loss, list(weights.values()))
        return dict(zip(weights, found, strict=True))

    descend(weights, recipe, recipe.total_steps(len(data)), gradients)
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
    images, labels = drawn(data, clip.card(), SHORT, root, 0)
    encoder = ImageEncoder.from_card(clip.card(), clip.visual_state())
    logits = head.logits(encoder(images)).double()
    surprise = -logits.log_softmax(1)
    truth = surprise[torch.arange(8), labels]
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
