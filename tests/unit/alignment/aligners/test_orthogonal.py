"""Orthogonal maps from few images: direct transfer at the start, what they keep, and what they find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from taskgrid.alignment import AlignContext, Axes, Side
from taskgrid.alignment.aligners.orthogonal import ALIGNER, CARD, Turned
from taskgrid.errors import LineageError
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.cards import plugin_options
from taskgrid.plugins.options import Options
from tests.unit.alignment.aligners.example_bases import ATTENTION, blocks, pair
from tests.unit.example_grid import world

SHORT: dict[str, Any] = {"steps": 40, "lr": 1e-2, "augment": 1.0}
KINDS = ("full", "attention", "lora")


def options(**values: Any) -> Options:
    return plugin_options("aligner", "orthogonal", values)


def turned(start: str = "identity", orthogonality: str = "hard", **values: Any) -> Turned:
    """The maps of two bases before they train."""
    given = pair("attention")
    encoder = ImageEncoder.from_card(given.target.the_card(), given.target.base)
    attention = {key: one for key, one in given.vector.items() if key.endswith(ATTENTION)}
    own = options(start=start, orthogonality=orthogonality, **values)
    return Turned(encoder, attention, own, seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orthogonality", ["hard", "soft"])
def test_maps_that_do_not_move_are_direct_transfer(kind: str, orthogonality: str) -> None:
    given = pair(kind)
    still = given.expert("orthogonal", steps=1, lr=1e-30, orthogonality=orthogonality)
    direct = given.expert("none")
    assert all(torch.equal(still[key], direct[key]) for key in direct)
    assert given.loss(given.expert("orthogonal", **SHORT)) != given.loss(direct)


@pytest.mark.parametrize("orthogonality", ["hard", "soft"])
def test_what_trains_is_what_is_kept(orthogonality: str) -> None:
    given, trainee = pair("attention"), turned("random", orthogonality)
    if orthogonality == "soft":
        trainee.turns.data.add_(0.1 * torch.randn_like(trainee.turns))
    state = trainee.visual_state()
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        inside = trainee(images)
        folded = ImageEncoder.from_card(given.target.the_card(), state)(images)
    torch.testing.assert_close(inside, folded, rtol=1e-5, atol=1e-5)
    moved = Axes(trainee.maps())({key: one.double() for key, one in given.vector.items()})
    for key, tensor in moved.items():
        expected = state[key].double() - given.target.base[key].double()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_norm_singular_values_eigenvalues_and_rank_are_kept(kind: str) -> None:
    given = pair(kind)
    before = blocks(given.vector)
    after = blocks(given.transport("orthogonal", **SHORT).exact(given.vector))
    assert float((after - before).norm() / before.norm()) > 0.05
    torch.testing.assert_close(after.norm(dim=(1, 2)), before.norm(dim=(1, 2)), rtol=1e-5, atol=0)
    values = torch.linalg.svdvals(before)
    torch.testing.assert_close(torch.linalg.svdvals(after), values, rtol=1e-5, atol=1e-5)
    ranks = (torch.linalg.svdvals(after) > 1e-4 * values[:, :1]).sum(dim=1)
    assert torch.equal(ranks, (values > 1e-4 * values[:, :1]).sum(dim=1))
    assert kind != "lora" or set(ranks.tolist()) == {2}
    # A similarity: of the characteristic polynomial the trace and the determinant show it.
    traces = [one.diagonal(dim1=1, dim2=2).sum(dim=1) for one in (before, after)]
    torch.testing.assert_close(traces[1], traces[0], rtol=1e-4, atol=1e-5)


def test_free_maps_keep_less_and_weight_decay_pulls_them_to_zero() -> None:
    given = pair("attention")
    before = blocks(given.vector).norm(dim=(1, 2))

    def norms(**values: Any) -> torch.Tensor:
        return blocks(given.transport("orthogonal", **SHORT, **values).exact(given.vector)).norm(
            dim=(1, 2)
        )

    soft = norms(orthogonality="soft", beta=0.0)
    assert float(((soft - before).abs() / before).max()) > 1e-3
    assert float(((norms(orthogonality="soft", beta=100.0) - before).abs() / before).max()) < float(
        ((soft - before).abs() / before).max()
    )
    decayed = norms(orthogonality="soft", weight_decay=5.0)
    assert bool((decayed < 0.7 * before).all())
    torch.testing.assert_close(norms(weight_decay=5.0), before, rtol=1e-5, atol=0)


def test_the_penalty_is_the_mean_distance_from_the_orthogonal_matrices() -> None:
    trainee = turned("identity", "soft", beta=2.0)
    assert turned("identity", "hard").penalty(0) is None
    at_start = trainee.penalty(0)
    assert at_start is not None and at_start.item() == 0
    at_start.backward()
    assert trainee.turns.grad is not None and bool(torch.isfinite(trainee.turns.grad).all())
    trainee.turns.data.add_(0.1 * torch.randn_like(trainee.turns))
    away = [u.T @ u - np.eye(16) for u in trainee.turns.detach().numpy()]
    expected = 2.0 * np.mean([np.linalg.norm(one) for one in away])
    found = trainee.penalty(7)
    assert found is not None and found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_on_the_few_images_is_below_that_of_direct_transfer(kind: str) -> None:
    given = pair(kind)
    learned = given.loss(given.expert("orthogonal", **SHORT))
    assert learned < 0.9 * given.loss(given.expert("none"))


def test_other_tensors_are_added_as_they_are_or_left() -> None:
    given = pair("full")
    base, direct = given.target.base, given.expert("none")
    learned, alone = (
        given.expert("orthogonal", **SHORT, others=others) for others in ("direct", "zero")
    )
    for key in base:
        if key.endswith(ATTENTION):
            assert not torch.equal(learned[key], direct[key])
            continue
        assert torch.equal(learned[key], direct[key])
        assert torch.equal(alone[key], base[key])


def test_a_random_start_is_orthogonal_and_its_own() -> None:
    trainee = turned("random")
    maps = trainee.turns.detach()
    torch.testing.assert_close(maps.mT @ maps, torch.eye(16).expand_as(maps), rtol=0, atol=1e-5)
    assert float((maps[0] - maps[1]).abs().max()) > 0.1
    assert torch.equal(maps, turned("random").turns.detach())


def test_a_vector_that_leaves_attention_alone_is_added_as_it_is() -> None:
    given = pair("full")
    for key, tensor in given.vector.items():
        if key.endswith(ATTENTION):
            tensor.zero_()
    learned, direct = given.expert("orthogonal", **SHORT), given.expert("none")
    assert all(torch.equal(learned[key], direct[key]) for key in direct)


def test_towers_without_attention_and_other_shapes_are_refused() -> None:
    base, wider = {"layer1.0.conv1.weight": torch.ones(2, 2)}, {"x": torch.ones(3)}
    with pytest.raises(LineageError, match="no attention projections"):
        ALIGNER.align(AlignContext(Side(base), Side(base), "a", dict(base), options()))
    with pytest.raises(LineageError, match="fits a base of its own shape only"):
        ALIGNER.align(AlignContext(Side(base), Side(wider), "a", dict(base), options()))
    assert CARD.sees == "labels" and CARD.per == "task"


# ------------------------------------------------------------------ a planted rotation


WIDTH = 12
KEY = "transformer.resblocks.0.attn.out_proj.weight"


class Linear(nn.Module):
    """A tower that is one matrix, of an image's twelve numbers."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        block = nn.Module()
        block.attn = nn.Module()
        block.attn.out_proj = nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64)
        block.attn.out_proj.weight = nn.Parameter(weight, requires_grad=False)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList([block])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.transformer.resblocks[0].attn.out_proj(images.flatten(1))
        return found


@pytest.mark.parametrize("rank", [WIDTH, 2])
def test_a_planted_rotation_is_found_up_to_what_the_vector_does_not_see(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    base, skew = normal(WIDTH, WIDTH), normal(WIDTH, WIDTH)
    delta = normal(WIDTH, rank) @ normal(rank, WIDTH) / rank**0.5
    planted = torch.linalg.matrix_exp(0.1 * (skew - skew.T))
    encoder = ImageEncoder(Linear(base), world(("a",)).card)
    trainee = Turned(encoder, {KEY: delta}, options())
    images = normal(100, 3, 2, 2)
    wanted = images.flatten(1) @ (base + planted.T @ delta @ planted).T
    optimiser = torch.optim.LBFGS(
        trainee.trained().values(), max_iter=1000, tolerance_grad=1e-12, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = (trainee(images) - wanted).square().mean()
        loss.backward()
        return loss

    before = float(closure().detach())
    optimiser.step(closure)
    assert float(closure().detach()) < 1e-8 * before
    found = trainee.turns.detach()[0]
    torch.testing.assert_close(
        found.T @ delta @ found, planted.T @ delta @ planted, rtol=0, atol=1e-4
    )
    away = min(float((found - sign * planted).abs().max()) for sign in (1, -1))
    if rank == WIDTH:
        assert away < 1e-3
    else:
        # What a vector of rank two does not see can be turned at will.
        assert away > 0.05
