"""Zips: the greedy pairing against the plain loop, planted groups, and what M and U must be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from taskgrid.alignment.taps import Moments
from taskgrid.alignment.zipping import apart, averaged, together, zip_pair, zip_space

Array = NDArray[np.float64]


def naive(correlation: Array, alpha: float, beta: float) -> list[int]:
    """The plain loop, which looks at all pairs of groups again before each merge."""
    both, count = len(correlation), len(correlation) // 2
    groups = {channel: {channel} for channel in range(both)}
    alike = {frozenset(pair): correlation[pair] for pair in itertools.combinations(range(both), 2)}
    left = [int(beta * (count // 2) + 1e-4)] * 2

    def shared(one: int, two: int) -> set[int]:
        sides = [{channel // count for channel in groups[each]} for each in (one, two)]
        return sides[0] & sides[1]

    for _ in range(count):
        pairs = [
            pair
            for pair in itertools.combinations(sorted(groups), 2)
            if all(left[side] > 0 for side in shared(*pair))
        ]
        # Of equal ones the first.
        one, two = max(pairs, key=lambda pair: alike[frozenset(pair)])
        for side in shared(one, two):
            left[side] -= 1
        groups[one] |= groups.pop(two)
        for other in groups.keys() - {one}:
            least = min(alike[frozenset((other, each))] for each in (one, two))
            alike[frozenset((other, one))] = alpha * least
    kept = list(groups.values())
    return [next(at for at, group in enumerate(kept) if each in group) for each in range(both)]


def drawn(seed: int, both: int = 14, digits: int | None = None) -> Array:
    """Correlations of random features; with few digits many are equal."""
    random = np.random.default_rng(seed)
    found = np.corrcoef(random.normal(size=(both, 9)) + 0.7 * random.normal(size=9))
    return found if digits is None else found.round(digits)


def moments_of(*features: Array) -> Moments:
    """Moments of the channels of networks, from features ``(rows, n)`` of each."""
    joint = torch.from_numpy(np.concatenate(features, axis=1))[:, None]
    found = Moments.between(joint, joint)
    found.add(joint, joint)
    return found


def matrices(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """M ``(n, T n)`` and U ``(T n, n)``."""
    pairs = together(groups)
    into = torch.cat([one.into for one in pairs], dim=1) / len(pairs)
    return into, torch.cat([one.back for one in pairs])


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_pairing_is_the_plain_loops(alpha: float, beta: float, digits: int | None) -> None:
    for seed in range(20):
        # Below zero, alpha makes a group worth more, and at zero it makes many equal.
        correlation = drawn(seed, digits=digits) - 0.8 * (seed % 2)
        found = zip_pair(torch.from_numpy(correlation), alpha, beta)
        assert found.tolist() == naive(correlation, alpha, beta), seed


def test_greedy_pairs_are_not_the_best_ones() -> None:
    across = np.array([[0.9, 0.8], [0.8, 0.1]])
    correlation = np.block([[np.eye(2), across], [across.T, np.eye(2)]])
    assert zip_pair(torch.from_numpy(correlation), 1.0, 0.0).tolist() == [0, 1, 0, 1]
    rows, columns = linear_sum_assignment(across, maximize=True)
    assert across[rows, columns].sum() == pytest.approx(1.6) and across.trace() < 1.6


@pytest.mark.parametrize("networks", [2, 3])
def test_planted_copies_are_paired_with_one_another(networks: int) -> None:
    random = np.random.default_rng(5)
    features = random.normal(size=(60, 12)) @ random.normal(size=(12, 12))
    orders = [np.arange(12), *(random.permutation(12) for _ in range(networks - 1))]
    seen = moments_of(*(features[:, order] for order in orders))
    groups = zip_space([seen], 12, alpha=0.3, beta=0.125)
    assert groups.tolist() == [order.tolist() for order in orders]
    into, back = matrices(groups)
    assert torch.equal(into @ back, torch.eye(12, dtype=torch.float64))
    for one, two in zip(together(groups), apart(groups), strict=True):
        assert torch.equal(one.into, two.into) and torch.equal(one.back, two.back)


def test_half_redundant_networks_are_both_kept_exactly() -> None:
    # Each hidden unit is there twice: no permutation can keep both heads, merges within each can.
    random, size = np.random.default_rng(2), 64
    weights, heads = [], []
    for _ in range(2):
        half = random.normal(size=(size // 2, 10))
        weights.append(np.concatenate([half, half])[random.permutation(size)])
        heads.append(random.normal(size=(5, size)))
    inputs = random.normal(size=(200, 10))
    hidden = [np.maximum(inputs @ one.T, 0) for one in weights]
    groups = zip_space([moments_of(*hidden)], size, alpha=0.3, beta=1.0)
    halves = [set(one.tolist()) for one in groups]
    assert [len(one) for one in halves] == [size // 2] * 2 and not halves[0] & halves[1]
    into, back = matrices(groups)
    merged = np.maximum(inputs @ (into.numpy() @ np.concatenate(weights)).T, 0)
    for one, own, head in zip(back.split(size), hidden, heads, strict=True):
        np.testing.assert_allclose(merged @ (head @ one.numpy()).T, own @ head.T, atol=1e-11)


@pytest.mark.parametrize("networks", [1, 2, 3, 4])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_what_every_zip_keeps(networks: int, beta: float) -> None:
    random, size = np.random.default_rng(networks), 16
    shared = random.normal(size=(80, 6))
    features = [
        shared @ random.normal(size=(6, size)) + 0.3 * random.normal(size=(80, size))
        for _ in range(networks)
    ]
    groups = zip_space([moments_of(*features)], size, alpha=0.5, beta=beta)
    assert groups.shape == (networks, size) and {*groups.flatten().tolist()} == {*range(size)}
    into, back = matrices(groups)
    torch.testing.assert_close(into.sum(dim=1), torch.ones(size).double(), rtol=0, atol=1e-14)
    # Each channel is in exactly one group.
    assert torch.equal(back.sum(dim=1), torch.ones(networks * size).double())
    unit = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(into @ back, unit, rtol=0, atol=1e-14)
    twice = back @ into @ back @ into
    torch.testing.assert_close(twice, back @ into, rtol=0, atol=1e-14)
    for pair in apart(groups):
        part = pair.into @ pair.back
        assert torch.equal(part, torch.diag(part.diagonal())) and {0, 1} >= {
            *part.diagonal().tolist()
        }
    # Each merge within a network leaves a group without one of its channels.
    within = [size - len(set(one.tolist())) for one in groups]
    if beta == 0:
        assert within == [0] * networks
    elif networks == 2:
        assert 0 < max(within) <= beta * size / 2


def test_moments_of_averages_are_those_of_averaged_features() -> None:
    random = np.random.default_rng(0)
    features = random.normal(3.0, 1.0, size=(40, 7))
    channels, groups = torch.tensor([6, 1, 2, 4, 0]), torch.tensor([1, 0, 1, 1, 0])
    found = averaged(moments_of(features), channels, groups)
    means = np.stack([features[:, [1, 0]].mean(1), features[:, [6, 2, 4]].mean(1)], axis=1)
    expected = moments_of(means)
    for name in ("means", "squares"):
        for one, two in zip(getattr(found, name), getattr(expected, name), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.correlation(), expected.correlation(), rtol=0, atol=1e-12)


def test_dead_channels_are_like_nothing() -> None:
    random = np.random.default_rng(1)
    features = random.normal(size=(30, 4))
    features[:, 2] = 0.1
    groups = zip_space([moments_of(features, features)], 4, alpha=0.3, beta=0.0)
    assert groups.tolist() == [[0, 1, 2, 3]] * 2
