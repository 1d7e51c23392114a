"""Laws of every registered fine-tuning mode, at its default options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from taskgrid import plugins
from taskgrid.finetuning.interruption import Scratch
from taskgrid.finetuning.loop import Finetuned, OtherTasks
from taskgrid.finetuning.modes.seam import get_mode
from taskgrid.finetuning.others import opened
from taskgrid.finetuning.recipe import Recipe
from taskgrid.models import ImageEncoder
from taskgrid.models.clip import Clip
from taskgrid.models.inference import logits_of
from taskgrid.models.linearized import LinearizedEncoder
from taskgrid.plugins.cards import mode_card, plugin_options
from taskgrid.store.weights import digest_state
from tests.unit.example_models import SIZE, tiny_clip, tiny_head, tiny_samples
from tests.unit.example_training import SHORT, resumed, run

MODES = plugins.names("mode")
OTHERS = OtherTasks({"birds": tiny_samples(9, seed=4), "cars": tiny_samples(7, seed=5)})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return tiny_clip(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expert(clip: Clip, mode: str) -> Finetuned:
    return trained(clip, mode)


def trained(clip: Clip, mode: str, **options: Any) -> Finetuned:
    return run(clip, recipe_of(mode), mode=mode, others=OTHERS, **options)


def recipe_of(mode: str) -> Recipe:
    return replace(SHORT, eval_every=2, **mode_card(mode).recipe)


def test_a_state_is_like_the_base_and_not_the_base(clip: Clip, expert: Finetuned) -> None:
    base = clip.visual_state()
    assert {n: (t.shape, t.dtype) for n, t in expert.state.items()} == {
        n: (t.shape, t.dtype) for n, t in base.items()
    }
    assert any(not torch.equal(tensor, base[name]) for name, tensor in expert.state.items())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in expert.state.values())


def test_a_seed_is_an_expert(clip: Clip, mode: str, expert: Finetuned) -> None:
    again, other = trained(clip, mode), trained(clip, mode, seed=1)
    assert digest_state(again.state) == digest_state(expert.state) != digest_state(other.state)
    assert digest_state(again.factors) == digest_state(expert.factors)
    assert again.history == expert.history


def test_training_begins_at_the_base(clip: Clip, mode: str) -> None:
    card, base = clip.card(), clip.visual_state()
    images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    options = plugin_options("mode", mode, {})
    wanted = mode_card(mode).others
    with (
        opened(
            OTHERS, wanted, mode=mode, card=card, recipe=SHORT, root=0, device=torch.device("cpu")
        ) as others,
        torch.no_grad(),
    ):
        encoder = ImageEncoder.from_card(card, base)
        trainee = get_mode(mode).prepare(encoder, options, 3, others)
        trainee.eval()
        state = trainee.visual_state()
        assert all(torch.equal(state[name], tensor) for name, tensor in base.items())
        for parameter in trainee.trained().values():
            parameter.requires_grad_(False)
        assert torch.equal(trainee(images), ImageEncoder.from_card(card, base)(images))


def test_what_trained_is_what_is_evaluated(clip: Clip, mode: str, expert: Finetuned) -> None:
    """The last validation is that of the state, in the kind of model that the card names."""
    kind = LinearizedEncoder if mode_card(mode).tangent else ImageEncoder
    encoder = kind.from_card(clip.card(), clip.visual_state())
    encoder.load(expert.state)
    val = tiny_samples(20, seed=1)
    right = logits_of(encoder, tiny_head(clip), val.pixels).argmax(1).numpy() == val.labels
    assert right.mean() == expert.history.curve("val/accuracy")[-1][1]


def test_resumed_is_uninterrupted(clip: Clip, mode: str, expert: Finetuned, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch", every_steps=1)
    again = resumed(clip, recipe_of(mode), scratch, (1, 4), mode=mode, others=OTHERS)
    assert digest_state(again.state) == digest_state(expert.state)
    assert digest_state(again.factors) == digest_state(expert.factors)
    assert again.history == expert.history


def test_factors_are_kept_where_the_card_says_so_and_make_the_vector(
    clip: Clip, mode: str, expert: Finetuned
) -> None:
    assert bool(expert.factors) == mode_card(mode).factors
    base, left = clip.visual_state(), dict(expert.factors)
    for name in [name for name in expert.factors if name.endswith(".A")]:
        a, b = left.pop(name), left.pop(f"{name.removesuffix('A')}B")
        key, _, part = name.removesuffix(".A").rpartition(".")
        place = "qkv".find(part) if part in ("q", "k", "v") else None
        whole = key if place is not None else f"{key}.{part}"
        delta = (expert.state[whole] - base[whole]).double()
        block = delta if place is None else delta.chunk(3)[place]
        torch.testing.assert_close((b.double() @ a.double()), block, rtol=0, atol=1e-6)
    assert not left
