"""LoRA: W + (alpha / r) B A, against products written out and a tower that keeps the factors apart."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from taskgrid.errors import TrainingError
from taskgrid.finetuning.modes.lora import MODE, LowRank
from taskgrid.finetuning.modes.seam import Others
from taskgrid.models import ImageEncoder
from taskgrid.models.clip import Clip
from taskgrid.plugins.cards import plugin_options
from taskgrid.store.weights import State
from tests.unit.example_models import SIZE
from tests.unit.example_training import run

ROWS = {"q": slice(0, 16), "k": slice(16, 32), "v": slice(32, 48)}
"""Of the fused projection of the tiny tower, whose width is 16."""
TARGETS = {
    "qkvo": [
        *(f"attn.in_proj_weight.{part}" for part in ROWS),
        "attn.out_proj.weight",
    ],
    "qv": ["attn.in_proj_weight.q", "attn.in_proj_weight.v"],
}
TARGETS["all"] = [*TARGETS["qkvo"], "mlp.c_fc.weight", "mlp.c_proj.weight"]


def trainee(clip: Clip, *, moved: bool = True, **options: Any) -> LowRank:
    encoder = ImageEncoder.from_card(clip.card(), clip.visual_state())
    made = MODE.prepare(encoder, plugin_options("mode", "lora", options), 5, Others())
    assert isinstance(made, LowRank)
    if moved:
        generator = torch.Generator().manual_seed(2)
        for b in made.b:
            b.data = 0.2 * torch.randn(b.shape, generator=generator)
    return made


def split(name: str) -> tuple[str, slice]:
    """The tensor, and the rows of it, that factors of a name change."""
    key, _, part = name.rpartition(".")
    return (key, ROWS[part]) if part in ROWS else (name, slice(None))


def pictures(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator)


@pytest.mark.parametrize("targets", ["qkvo", "qv", "all"])
def test_the_state_is_the_base_and_the_scaled_product(clip: Clip, targets: str) -> None:
    made, base = trainee(clip, targets=targets, rank=3, alpha=12.0), clip.visual_state()
    names = [f"transformer.resblocks.{n}.{t}" for n in (0, 1) for t in TARGETS[targets]]
    factors, state = made.factors(), made.visual_state()
    assert set(factors) == {f"{name}.{side}" for name in names for side in "AB"}
    expected = {key: tensor.double() for key, tensor in base.items()}
    for name, a, b in zip(names, made.a, made.b, strict=True):
        assert a.shape[0] == b.shape[1] == 3
        key, rows = split(name)
        expected[key][rows] += 12 / 3 * (b.double() @ a.double())
        assert torch.equal(factors[f"{name}.A"], a)
        torch.testing.assert_close(factors[f"{name}.B"], 4 * b, rtol=1e-6, atol=0)
    for key, tensor in state.items():
        torch.testing.assert_close(tensor.double(), expected[key], rtol=0, atol=1e-6)
    untouched = set(base) - {split(name)[0] for name in names}
    assert all(torch.equal(state[key], base[key]) for key in untouched)


class Apart(nn.Module):
    """A linear map with its factors beside it: x W^T + b + (x A^T) B^T."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, factors: State, name: str) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.a, self.b = factors[f"{name}.A"].double(), factors[f"{name}.B"].double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias) + (x @ self.a.T) @ self.b.T


class AttentionApart(nn.Module):
    """Two heads of attention written out, with the factors of each projection beside it."""

    def __init__(self, attention: nn.MultiheadAttention, factors: State, name: str) -> None:
        super().__init__()
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        self.maps = nn.ModuleList(
            Apart(weight[rows], bias[rows], factors, f"{name}.in_proj_weight.{part}")
            for part, rows in ROWS.items()
        )
        out = attention.out_proj
        self.out = Apart(out.weight, out.bias, factors, f"{name}.out_proj.weight")

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        q, k, v = (m(x).unflatten(-1, (2, 8)).transpose(1, 2) for m in self.maps)
        weights = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(-2)), None


def test_its_features_are_those_of_factors_kept_apart(clip: Clip) -> None:
    made = trainee(clip, targets="all", rank=3)
    tower = copy.deepcopy(made.encoder.tower).double()
    factors = made.factors()
    for number, block in enumerate(tower.transformer.resblocks):
        name = f"transformer.resblocks.{number}"
        block.attn = AttentionApart(block.attn, factors, f"{name}.attn")
        for part in ("c_fc", "c_proj"):
            linear = getattr(block.mlp, part)
            setattr(
                block.mlp,
                part,
                Apart(linear.weight, linear.bias, factors, f"{name}.mlp.{part}.weight"),
            )
    merged = ImageEncoder.from_card(clip.card(), made.visual_state())
    with torch.no_grad():
        expected = tower(pictures().double())
        assert (made.encoder(pictures()) - expected).abs().max() > 0.1
        for found in (made(pictures()), merged(pictures())):
            torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=2e-6)


def test_gradients_are_those_of_the_chain_rule(clip: Clip) -> None:
    made = trainee(clip, targets="qkvo", rank=2, alpha=6.0)
    whole = ImageEncoder.from_card(clip.card(), made.visual_state())
    whole.requires_grad_(True)
    for model in (made, whole):
        (model(pictures()) ** 2).sum().backward()
    names = [name for name in made.factors() if name.endswith(".A")]
    slopes = {key: p.grad for key, p in whole.tower.named_parameters()}
    for name, a, b in zip(names, made.a, made.b, strict=True):
        key, rows = split(name.removesuffix(".A"))
        slope = slopes[key]
        assert slope is not None
        for found, expected in ((a, 3 * b.T @ slope[rows]), (b, 3 * slope[rows] @ a.T)):
            assert found.grad is not None
            torch.testing.assert_close(found.grad, expected, rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in made.encoder.parameters())


def test_it_begins_at_the_base_and_a_is_drawn_from_the_seed(clip: Clip) -> None:
    made, again = (trainee(clip, moved=False) for _ in range(2))
    assert all(not b.any() for b in made.b)
    for a, other in zip(made.a, again.a, strict=True):
        assert torch.equal(a, other)
        # +-1/4: 16 columns; of 256 draws from it the outermost lie near.
        assert 0.23 < a.detach().abs().max() <= 0.25
        assert a.detach().mean().abs() < 0.04


def test_training_moves_the_targets_within_their_rank(clip: Clip) -> None:
    base = clip.visual_state()
    expert = run(clip, mode="lora", mode_options={"targets": "qv", "rank": 2})
    moved = {name for name in base if not torch.equal(base[name], expert.state[name])}
    assert moved == {f"transformer.resblocks.{n}.attn.in_proj_weight" for n in (0, 1)}
    for key in moved:
        assert torch.equal(base[key][ROWS["k"]], expert.state[key][ROWS["k"]])
        for part in "qv":
            delta = (expert.state[key] - base[key])[ROWS[part]].double()
            assert torch.linalg.matrix_rank(delta, rtol=1e-3) == 2
            product = expert.factors[f"{key}.{part}.B"] @ expert.factors[f"{key}.{part}.A"]
            torch.testing.assert_close(product.double(), delta, rtol=0, atol=1e-6)


def test_a_tower_without_projections_is_refused(clip: Clip) -> None:
    encoder = ImageEncoder(nn.Sequential(nn.Linear(3, 3)), clip.card())
    with pytest.raises(TrainingError, match="'tiny' has no projection that mode 'lora'"):
        MODE.prepare(encoder, plugin_options("mode", "lora", {}), 0, Others())
