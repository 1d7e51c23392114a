"""Matching by the loss halfway between two networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.alignment.canonical import canonical
from taskgrid.alignment.maps import Axes
from taskgrid.alignment.matching import Maps, match_weights
from taskgrid.alignment.spaces import RES, mlp_space
from taskgrid.alignment.straight_through import straight_through
from taskgrid.errors import LineageError
from taskgrid.store.weights import State
from tests.unit.alignment.trained_networks import (
    barrier,
    digits,
    loss_of,
    mlp_spaces,
    mlps,
    points,
    towers,
)

WIDTH = 64


def terms(module: torch.nn.Module, batches: int = 2) -> list:
    generator = torch.Generator().manual_seed(50)
    found = [loss_of(module, *points(generator, 200)) for _ in range(batches)]
    return [lambda state, one=one: one(state) / batches for one in found]


def test_it_begins_at_the_matching_of_weights_and_goes_on_from_there() -> None:
    module, spaces, *ends = towers()
    one, two = map(canonical, ends)
    images, labels = digits()
    seen, unseen = (loss_of(module, images[at::4], labels[at::4]) for at in (0, 1))
    maps, history = straight_through(spaces, one, two, [seen], steps=10, lr=0.1)
    assert len(history) == 11

    def renamed(found: Maps) -> State:
        return Axes(spaces.axes_by(found))(two)

    def halfway(found: Maps) -> float:
        other = renamed(found)
        return float(seen({key: (one[key] + other[key]) / 2 for key in one}))

    by_weights = match_weights(spaces, one, two).maps
    assert history[0] == pytest.approx(halfway(by_weights), rel=1e-5)
    assert halfway(maps) == pytest.approx(min(history), rel=1e-5)
    assert min(history) < 0.9 * history[0]
    assert barrier(unseen, one, renamed(maps)) < barrier(unseen, one, renamed(by_weights))


def test_how_a_batch_is_cut_changes_nothing() -> None:
    module, one, two = mlps(WIDTH)
    spaces, (first, second) = mlp_spaces(WIDTH), terms(module)
    together = [lambda state: first(state) + second(state)]
    found = [
        straight_through(spaces, one, two, losses, steps=3, lr=0.03)
        for losses in ([first, second], together)
    ]
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)


def test_a_planted_renaming_has_no_gradient_to_follow() -> None:
    # Halfway between a network and itself the loss is its own: the first matching is the last.
    _, one, _ = mlps(WIDTH)
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(0))
    planted = {RES: order, mlp_space(0): order.flip(0)}
    spaces = mlp_spaces(WIDTH)
    target = Axes(spaces.axes_by(planted))(one)

    def distance(state: State) -> torch.Tensor:
        return sum(((state[key] - target[key].float()) ** 2).sum() for key in target)

    maps, history = straight_through(spaces, target, one, [distance], steps=5, lr=0.03)
    assert all(torch.equal(maps[space], planted[space]) for space in planted)
    assert max(history) < 1e-9


def test_with_the_stream_left_alone_it_stays() -> None:
    module, one, two = mlps(WIDTH)
    spaces = mlp_spaces(WIDTH)
    maps, _ = straight_through(spaces, one, two, terms(module), steps=2, lr=0.03, residual=False)
    assert torch.equal(maps[RES], torch.arange(WIDTH))


def test_a_training_that_diverges_is_called_so() -> None:
    _, one, two = mlps(WIDTH)

    def broken(state: State) -> torch.Tensor:
        return sum(each.sum() for each in state.values()) * torch.nan

    with pytest.raises(LineageError, match="not finite"):
        straight_through(mlp_spaces(WIDTH), one, two, [broken], steps=2, lr=0.03)
