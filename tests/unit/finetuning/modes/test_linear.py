"""Linear fine-tuning: what trains is the tangent model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from taskgrid.finetuning.recipe import Recipe
from taskgrid.models import LinearizedEncoder
from taskgrid.models.clip import Clip
from taskgrid.models.inference import logits_of
from tests.unit.example_models import tiny_head, tiny_samples
from tests.unit.example_training import SHORT, run


def test_the_expert_learns_as_a_tangent_model(clip: Clip) -> None:
    recipe = Recipe(epochs=6, batch_size=16, warmup_steps=5, lr=1e-2)
    val = tiny_samples(60, seed=1)
    expert = run(clip, recipe, mode="linear", data=tiny_samples(150), val=val)
    curve = expert.history.curve("val/accuracy")
    assert curve[-1][1] > 0.9 > 0.7 > curve[0][1]
    linear = LinearizedEncoder.from_card(clip.card(), clip.visual_state())
    linear.load(expert.state)
    right = logits_of(linear, tiny_head(clip), val.pixels).argmax(1).numpy() == val.labels
    assert right.mean() == curve[-1][1]
    assert expert.lineage["mode"] == "linear"
    base = clip.visual_state()
    assert {n: (t.shape, t.dtype) for n, t in expert.state.items()} == {
        n: (t.shape, t.dtype) for n, t in base.items()
    }
    assert all(not torch.equal(t, base[n]) for n, t in expert.state.items())


def test_its_first_gradient_is_that_of_the_standard_mode(clip: Clip) -> None:
    # At theta_0 the tangent model and the network have the same value and the same Jacobian.
    # Each mode has its own order of images; of a batch of all of them the mean does not depend on it.
    whole = replace(SHORT, batch_size=30, crop_scale=1.0, steps=3, warmup_steps=0)
    losses, norms = (
        [dict(run(clip, whole, mode=mode).history.curve(metric)) for mode in ("linear", "standard")]
        for metric in ("train/loss", "train/grad_norm")
    )
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-5)
    assert norms[0][1] == pytest.approx(norms[1][1], rel=1e-3)
    assert losses[0][3] != pytest.approx(losses[1][3], rel=1e-4)
