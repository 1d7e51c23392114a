"""Plans between channels against brute force, linear programs, and what defines an entropic plan."""

from __future__ import annotations

import itertools
import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linprog

from taskgrid.alignment import optimal_transport
from taskgrid.alignment.optimal_transport import (
    as_map,
    joined,
    plan,
    plan_in_heads,
)
from taskgrid.alignment.spaces import Pair
from taskgrid.errors import ConfigError, LineageError

SHAPES = [(5, 5), (4, 6), (6, 4), (3, 7)]


def costs(n: int, m: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def least(cost: torch.Tensor) -> float:
    """The least cost of any plan, by a linear program over all its entries."""
    n, m = cost.shape
    rows = [np.kron(np.eye(n)[i], np.ones(m)) for i in range(n)]
    columns = [np.kron(np.ones(n), np.eye(m)[j]) for j in range(m)]
    marginals = [1 / n] * n + [1 / m] * m
    found = linprog(cost.flatten().numpy(), A_eq=np.array(rows + columns), b_eq=marginals)
    assert found.success
    return float(found.fun)


def shortest(cost: torch.Tensor) -> float:
    """The least cost of a permutation, by trying all."""
    n = len(cost)
    return min(
        sum(float(cost[i, order[i]]) for i in range(n)) / n
        for order in itertools.permutations(range(n))
    )


def off(found: torch.Tensor) -> float:
    """What marginals are off by."""
    n, m = found.shape
    return max(
        float((found.sum(dim=1) - 1 / n).abs().max()), float((found.sum(dim=0) - 1 / m).abs().max())
    )


@pytest.mark.parametrize("seed", range(5))
def test_of_equal_widths_the_exact_plan_is_the_best_permutation(seed: int) -> None:
    # Birkhoff: no plan at all is cheaper, which the linear program and POT's simplex confirm.
    cost = costs(6, 6, seed)
    found = plan(cost)
    assert sorted(found.argmax(dim=1).tolist()) == list(range(6))
    assert int(found.count_nonzero()) == 6 and off(found) < 1e-15
    even = np.full(6, 1 / 6)
    price = float((found * cost).sum())
    assert price == pytest.approx(shortest(cost), abs=1e-12)
    assert price == pytest.approx(least(cost), abs=1e-9)
    assert price == pytest.approx(float(ot.emd2(even, even, cost.numpy())), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(4, 6), (6, 4), (3, 7), (2, 8)])
def test_of_unequal_widths_the_exact_plan_is_the_linear_programs(n: int, m: int) -> None:
    for seed in range(3):
        cost = costs(n, m, seed)
        found = plan(cost)
        assert off(found) < 1e-15 and float(found.min()) >= 0
        assert float((found * cost).sum()) == pytest.approx(least(cost), abs=1e-9)
        # No crumbs: channels are cut into equal parts, and none is smaller.
        parts = found * math.lcm(n, m)
        assert torch.equal(parts, parts.round())


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("reg", [None, 0.02, 1.0])
def test_both_maps_have_rows_that_add_up_to_one(n: int, m: int, reg: float | None) -> None:
    found = plan(costs(n, m), reg)
    # Stretched by what float64 does not see, so that permutations come as matrices, too.
    maps = as_map(found, 1 + 2**-50)
    assert isinstance(maps, Pair)
    assert maps.into.shape == (m, n) and maps.back.shape == (n, m)
    torch.testing.assert_close(maps.into, m * found.T, rtol=0, atol=1e-7)
    torch.testing.assert_close(maps.back, n * found, rtol=0, atol=1e-7)
    for one in (maps.into, maps.back):
        torch.testing.assert_close(one.sum(dim=1), torch.ones(len(one)).double(), rtol=0, atol=1e-7)


def test_one_matrix_for_both_sides_is_wrong_where_widths_differ() -> None:
    """The papers' one T, by its row count or by its columns, beside M and U.

    Hidden units that are doubled with halved weights behind them are the same function, and the plan
    between them and the single ones has no cost.
    """
    first, last = costs(4, 3, 1) - 0.5, costs(2, 4, 2) - 0.5
    twice = torch.arange(8) // 2
    wide, halves = first[twice], last[:, twice] / 2
    down = plan(torch.cdist(wide, first))
    up = plan(torch.cdist(first, wide))
    for found, one, two, ends in (
        (up, first, last, (wide, halves)),
        (down, wide, halves, (first, last)),
    ):
        maps = as_map(found)
        assert isinstance(maps, Pair)
        torch.testing.assert_close(maps.into @ one, ends[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(two @ maps.back, ends[1], rtol=0, atol=1e-12)
        by_rows, by_columns = len(found) * found, found.shape[1] * found
        assert float((by_rows.T @ one - ends[0]).abs().max()) > 0.1
        assert float((two @ by_columns - ends[1]).abs().max()) > 0.01


def test_a_permutation_comes_as_an_index() -> None:
    cost = costs(7, 7, 3)
    index = as_map(plan(cost))
    assert isinstance(index, torch.Tensor)
    channels = costs(7, 2, 4)
    torch.testing.assert_close(channels[index], 7 * plan(cost).T @ channels)
    assert isinstance(as_map(plan(cost), 2.0), Pair) and isinstance(as_map(plan(cost, 0.5)), Pair)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("reg", [0.05, 0.5])
def test_an_entropic_plan_is_what_defines_it(n: int, m: int, reg: float) -> None:
    # Of all matrices with these marginals, the one with log T = -C / reg + a number per row and column.
    cost = costs(n, m)
    found = plan(cost, reg)
    assert off(found) < 1e-8
    rest = found.log() + cost / cost.max() / reg
    rest = rest - rest.mean(dim=0)
    torch.testing.assert_close(rest, rest.mean(dim=1, keepdim=True).expand_as(rest))


def test_the_unit_of_costs_says_nothing() -> None:
    torch.testing.assert_close(plan(costs(4, 6), 0.1), plan(1e6 * costs(4, 6), 0.1))


def test_soft_plans_lie_between_the_exact_and_the_even_one() -> None:
    # A planted permutation: only where it goes, a channel is at no distance.
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    rows = costs(8, 30, 5)
    cost = torch.cdist(rows, rows[order])
    hard = plan(cost)
    away = [float((plan(cost, reg) - hard).abs().max()) for reg in (0.02, 0.08, 0.3, 1.0)]
    assert away == sorted(away) and away[0] < 1e-12 and away[-1] > 0.05
    even = torch.full((8, 8), 1 / 64, dtype=torch.float64)
    torch.testing.assert_close(plan(cost, 1e6), even, rtol=0, atol=1e-7)
    torch.testing.assert_close(plan(torch.zeros_like(cost), 0.1), even, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_heads_go_to_heads_as_wholes(seed: int) -> None:
    """Two heads of three channels in two spaces: all orders of heads and of channels inside them."""
    pair = [costs(6, 6, seed), costs(6, 6, seed + 100)]
    blocks = [cost.view(2, 3, 2, 3).transpose(1, 2) for cost in pair]
    prices = [
        sum(shortest(one[i, order[i]]) for i in range(2) for one in blocks) / 2
        for order in ((0, 1), (1, 0))
    ]
    found = plan_in_heads(pair, (2, 2))
    price = sum(float((one * cost).sum()) for one, cost in zip(found, pair, strict=True))
    assert price == pytest.approx(min(prices), abs=1e-12)
    whole = [one.view(2, 3, 2, 3).sum(dim=(1, 3)) for one in found]
    assert torch.allclose(whole[0], whole[1]) and int((whole[0] > 1e-9).sum()) == 2
    assert max(off(one) for one in found) < 1e-15


@pytest.mark.parametrize("reg", [None, 0.2])
def test_heads_of_other_numbers_and_widths(reg: float | None) -> None:
    pair = [costs(6, 8, 1), costs(6, 8, 2)]
    blocks = [cost.view(2, 3, 4, 2).transpose(1, 2) for cost in pair]
    between = torch.tensor(
        [[sum(least(one[i, j]) for one in blocks) for j in range(4)] for i in range(2)]
    )
    found = plan_in_heads(pair, (2, 4), reg)
    assert max(off(one) for one in found) < 1e-8
    for one in found:
        whole = one.view(2, 3, 4, 2).sum(dim=(1, 3))
        assert float((whole * between).sum()) == pytest.approx(least(between), abs=1e-6)


def test_policies_of_a_residual_connection() -> None:
    skip, branch = plan(costs(4, 4, 1)), plan(costs(4, 4, 2))
    sizes = torch.tensor([3.0, 1.0, 0.0, 2.0]).double(), torch.tensor([1.0, 1.0, 0.0, 0.0]).double()
    assert torch.equal(joined("only_resid", skip, branch, sizes), skip)
    assert torch.equal(joined("no_resid", skip, branch, sizes), branch)
    torch.testing.assert_close(joined("mean", skip, branch, sizes), 0.5 * skip + 0.5 * branch)
    torch.testing.assert_close(
        joined("weighted_scalar", skip, branch, sizes), 0.75 * skip + 0.25 * branch
    )
    by_hand = skip * torch.tensor([0.75, 0.5, 0.5, 1.0]) + branch * torch.tensor(
        [0.25, 0.5, 0.5, 0]
    )
    mixed = joined("weighted_matrix", skip, branch, sizes)
    torch.testing.assert_close(mixed, by_hand)
    # Weights by channel leave the columns alone; rows are made to add up again.
    torch.testing.assert_close(mixed.sum(dim=0), torch.full((4,), 0.25).double())
    maps = as_map(mixed)
    assert isinstance(maps, Pair)
    torch.testing.assert_close(maps.back.sum(dim=1), torch.ones(4).double())
    assert all(torch.equal(joined(name, skip, skip, sizes) > 0, skip > 0) for name in POLICIES)


POLICIES = ("mean", "only_resid", "no_resid", "weighted_scalar", "weighted_matrix")


def test_no_plan_is_used_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimal_transport, "_STEPS", 1)
    with pytest.raises(ConfigError, match=r"after 1 steps: .* with `reg: 0\.001`; raise it"):
        plan(costs(8, 8), 0.001)
    monkeypatch.setattr(optimal_transport, "_PIVOTS", 1)
    with (
        pytest.warns(UserWarning, match="numItermax"),
        pytest.raises(ConfigError, match="no exact plan of 4 to 6 channels"),
    ):
        plan(costs(4, 6))
    with pytest.raises(LineageError, match="give bases without NaN"):
        plan(costs(4, 4) / 0)
