"""The mode seam: penalties that read the other tasks, against loops written by hand in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from taskgrid.errors import ConfigError, DataError, TrainingError
from taskgrid.finetuning.interruption import Scratch
from taskgrid.finetuning.loop import Finetuned, OtherTasks
from taskgrid.finetuning.modes.seam import Others, Trainee, get_mode
from taskgrid.finetuning.modes.standard import MODE as STANDARD
from taskgrid.finetuning.recipe import Recipe
from taskgrid.models import ImageEncoder
from taskgrid.models.clip import Clip
from taskgrid.plugins.options import Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State, digest_state
from tests.unit.example_models import tiny_clip, tiny_head, tiny_samples
from tests.unit.example_training import SHORT, descend, drawn, resumed, run

RECIPE = replace(SHORT, steps=9, lr=1e-3, clip_norm=0.5)
DATA = tiny_samples(30)
OTHERS = {"birds": tiny_samples(11, seed=4), "cars": tiny_samples(9, seed=5)}


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modes of another package."""
    modes = {name: f"{__package__}.{name}" for name in ("other_images", "other_statistic")}
    monkeypatch.setattr("taskgrid.plugins.registry._outside", lambda: {"mode": modes})


class ByHand:
    """What a loop in float64 starts from: the base, the head, and the draws of a mode's seeds."""

    def __init__(self, clip: Clip, mode: str) -> None:
        self.card = clip.card()
        self.encoder = ImageEncoder.from_card(self.card, clip.visual_state()).double()
        self.head = tiny_head(clip).weight.double()
        self.root = derive_seed("finetune", 0, "pets", mode)
        self.losses: list[float] = []
        self.penalties: list[float] = []

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = drawn(DATA, self.card, RECIPE, self.root, step)
        return images.double(), labels

    def other(self, task: str, number: int, size: int) -> torch.Tensor:
        root = derive_seed("other", self.root, task)
        recipe = replace(RECIPE, batch_size=size)
        return drawn(OTHERS[task], self.card, recipe, root, number)[0].double()

    def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        features = features / features.norm(dim=-1, keepdim=True)
        return nn.functional.cross_entropy(features @ self.head.T, labels)


def agree(
    expert: Finetuned, hand: ByHand, weights: Mapping[str, torch.Tensor], base: State
) -> None:
    curves = expert.history
    assert [v for _, v in curves.curve("train/loss")] == pytest.approx(hand.losses, rel=1e-4)
    assert [v for _, v in curves.curve("train/penalty")] == pytest.approx(
        hand.penalties, rel=2e-3, abs=1e-7
    )
    for name, tensor in weights.items():
        # The key bias has no gradient but rounding, which AdamW makes as large as any.
        seen = torch.ones(len(tensor), dtype=torch.bool)
        seen[16:32] = not name.endswith("in_proj_bias")
        expected, start = tensor.detach()[seen], base[name][seen]
        off = (expert.state[name][seen] - expected).norm()
        assert off <= 2e-2 * (expected - start).norm() + 1e-6, name


def test_a_penalty_on_images_of_other_tasks_is_that_of_a_loop_by_hand(clip: Clip) -> None:
    """J tau by differentiating backwards twice; the gradient of its norm as J^T (J tau / |J tau|)."""
    expert = run(clip, RECIPE, data=DATA, mode="other_images", others=OtherTasks(OTHERS))
    hand = ByHand(clip, "other_images")
    start = {k: p.requires_grad_(True) for k, p in hand.encoder.tower.named_parameters()}
    theta = {k: p.detach().clone() for k, p in start.items()}

    def pulled(
        out: torch.Tensor, along: torch.Tensor, *, again: bool = False
    ) -> list[torch.Tensor]:
        found = torch.autograd.grad(
            out, list(start.values()), along, retain_graph=True, create_graph=again
        )
        return list(found)

    def moved(out: torch.Tensor) -> torch.Tensor:
        probe = torch.zeros_like(out, requires_grad=True)
        tau = [theta[name] - p.detach() for name, p in start.items()]
        pairs = zip(pulled(out, probe, again=True), tau, strict=True)
        total = torch.stack([(gradient * t).sum() for gradient, t in pairs]).sum()
        return torch.autograd.grad(total, probe)[0]

    def gradients(step: int) -> dict[str, torch.Tensor]:
        images, labels = hand.batch(step)
        out = hand.encoder(images)
        features = (out + moved(out)).detach().requires_grad_(True)
        loss = hand.loss(features, labels)
        found = pulled(out, torch.autograd.grad(loss, features)[0])
        number, place = divmod(step, 2)
        out = hand.encoder(hand.other(["birds", "cars"][place], number, 4))
        slope = moved(out)
        norms = slope.norm(dim=1, keepdim=True)
        unit = torch.where(norms > 0, slope / norms, 0)
        held = pulled(out, 0.5 * unit / len(unit))
        hand.penalties.append(0.5 * float(norms.mean()))
        hand.losses.append(loss.item() + hand.penalties[-1])
        return {name: a + b for name, a, b in zip(start, found, held, strict=True)}

    with sdpa_kernel(SDPBackend.MATH):
        descend(theta, RECIPE, 9, gradients)
    agree(expert, hand, theta, clip.visual_state())
    assert expert.history.curve("train/penalty")[0][1] == 0
    # It pulls: without it, more moves on the others' images.
    free = run(
        clip,
        RECIPE,
        data=DATA,
        mode="other_images",
        mode_options={"weight": 0.0},
        others=OtherTasks(OTHERS),
    )
    assert digest_state(free.state) != digest_state(expert.state)


def test_a_penalty_on_a_statistic_of_other_tasks_is_that_of_a_loop_by_hand(clip: Clip) -> None:
    base = clip.visual_state()
    generator = torch.Generator().manual_seed(3)
    importance = {
        task: {k: 300 * torch.rand(t.shape, generator=generator) for k, t in base.items()}
        for task in OTHERS
    }
    others = OtherTasks(statistics={"importance": importance, "unasked": {}})
    expert = run(clip, RECIPE, data=DATA, mode="other_statistic", others=others)
    hand = ByHand(clip, "other_statistic")
    hand.encoder.requires_grad_(True)
    weights = dict(hand.encoder.tower.named_parameters())

    def gradients(step: int) -> dict[str, torch.Tensor]:
        images, labels = hand.batch(step)
        loss = hand.loss(hand.encoder(images), labels)
        found = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        if step:
            penalty = 0.0
            for name, weight in weights.items():
                total = importance["birds"][name].double() + importance["cars"][name].double()
                gap = weight.detach() - base[name].double()
                penalty += float((total * gap**2).sum()) / 2
                found[name] = found[name] + total * gap
            hand.penalties.append(penalty)
        hand.losses.append(loss.item() + sum(hand.penalties[-1:]))
        return found

    descend(weights, RECIPE, 9, gradients)
    agree(expert, hand, weights, base)
    assert hand.penalties[-1] > 1e-3
    # What gives no penalty at a step has none in its curve.
    assert [step for step, _ in expert.history.curve("train/penalty")] == list(range(2, 10))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_penalty_resumes_with_the_same_bits(clip: Clip, tmp_path: Path, accumulate: int) -> None:
    settings: dict[str, Any] = {"mode": "other_images", "others": OtherTasks(OTHERS)}
    recipe = replace(RECIPE, accumulate=accumulate)
    whole = run(clip, recipe, **settings)
    scratch = Scratch(tmp_path / "scratch", every_steps=2)
    again = resumed(clip, recipe, scratch, (3, 8), **settings)
    assert digest_state(again.state) == digest_state(whole.state)
    assert again.history == whole.history
    # Other images are another training.
    few = OtherTasks({**OTHERS, "cars": tiny_samples(8, seed=5)})
    fresh, other = (
        run(clip, recipe, mode="other_images", others=few, scratch=where)
        for where in (None, scratch)
    )
    assert digest_state(fresh.state) == digest_state(other.state) != digest_state(whole.state)


def test_micro_batches_do_not_multiply_a_penalty(clip: Clip) -> None:
    curves = [
        run(
            clip,
            replace(RECIPE, accumulate=accumulate),
            mode="other_images",
            others=OtherTasks(OTHERS),
        ).history
        for accumulate in (1, 4)
    ]
    for metric in ("train/loss", "train/penalty", "train/grad_norm"):
        whole, parts = (dict(each.curve(metric)) for each in curves)
        assert whole == pytest.approx(parts, rel=1e-3, abs=1e-6)


def test_what_a_mode_reads_must_be_there(clip: Clip) -> None:
    with pytest.raises(ConfigError, match="'other_images' reads images of the other tasks; give"):
        run(clip, mode="other_images")
    with pytest.raises(ConfigError, match="'other_statistic' reads importance of the other"):
        run(clip, mode="other_statistic", others=OtherTasks(OTHERS))
    none = OtherTasks({"birds": tiny_samples(0)})
    with pytest.raises(DataError, match=r"'birds' has no training images, which .*'other_images'"):
        run(clip, mode="other_images", others=none)


def test_what_a_mode_does_not_read_changes_nothing(clip: Clip) -> None:
    plain, more = run(clip), run(clip, others=OtherTasks(OTHERS))
    assert digest_state(plain.state) == digest_state(more.state)
    assert plain.lineage == more.lineage


def test_a_diverged_penalty_is_told(clip: Clip) -> None:
    with pytest.raises(TrainingError, match=r"diverged at step 1 of 4 \(loss nan"):
        run(
            clip,
            Recipe(steps=4, batch_size=8, warmup_steps=0, lr=1e-2),
            mode="other_images",
            mode_options={"weight": 1e39},
            others=OtherTasks(OTHERS),
        )


def test_a_trainee_that_trains_nothing_is_refused(clip: Clip) -> None:
    encoder = ImageEncoder.from_card(clip.card(), clip.visual_state())
    with pytest.raises(TrainingError, match="trains no parameter"):
        Trainee(encoder).trained()


def test_modes_are_found_by_name() -> None:
    assert get_mode("standard") is STANDARD


def test_sine_position_codes_never_train(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    card = clip.card()
    vision = card.tower["vision_cfg"] | {"pos_embed_type": "sin_cos_2d"}
    card = replace(card, tower={**card.tower, "vision_cfg": vision})
    encoder = ImageEncoder.from_card(card, clip.visual_state())
    trained = STANDARD.prepare(encoder, Options(), 0, Others()).trained()
    names = {name.removeprefix("encoder.tower.") for name in trained}
    assert names == set(clip.visual_state()) - {"positional_embedding"}
