from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from taskgrid.store.intervals import (
    Pair,
    difference_interval,
    mean_intervals,
    resample,
    wilson,
)

DRAWS = 20000


def hits(n: int, accuracy: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < accuracy


@given(n=st.integers(1, 5000), data=st.data(), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipys(n: int, data: st.DataObject, level: float) -> None:
    correct = data.draw(st.integers(0, n))
    expected = binomtest(correct, n).proportion_ci(level, method="wilson")
    low, high = wilson(correct, n, level)
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)


def test_wilson_takes_whole_columns() -> None:
    low, high = wilson(np.array([0, 5, 10]), np.array([10, 10, 10]))
    assert low[0] == pytest.approx(0, abs=1e-12)
    assert high[2] == pytest.approx(1, abs=1e-12)
    assert low.min() >= 0
    assert high.max() <= 1
    assert low[1] + high[1] == pytest.approx(1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_pair_counts_the_four_kinds(samples: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(column) for column in zip(*samples, strict=True))
    pair = Pair.of(first, second, seed=0)
    assert (pair.both, pair.first, pair.second, pair.neither) == (
        samples.count((True, True)),
        samples.count((True, False)),
        samples.count((False, True)),
        samples.count((False, False)),
    )
    assert pair.n == len(samples)


def test_outcomes_on_different_images_are_no_pair() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        Pair.of(np.array([True]), np.array([True, False]), seed=0)


def test_the_spread_of_one_accuracy_is_the_binomials() -> None:
    n, merged = 400, hits(400, 0.8, 1)
    pair = Pair.of(merged, hits(n, 0.9, 2), seed=3)
    accuracy, expert = resample(pair, DRAWS)
    share = merged.mean()
    assert accuracy.mean() == pytest.approx(share, abs=4 * math.sqrt(0.16 / n / DRAWS))
    assert accuracy.std() == pytest.approx(math.sqrt(share * (1 - share) / n), rel=0.03)
    assert expert.mean() == pytest.approx(hits(n, 0.9, 2).mean(), abs=1e-3)


def test_a_difference_has_the_standard_error_of_paired_proportions() -> None:
    first, second = hits(900, 0.8, 1), hits(900, 0.5, 2) & hits(900, 0.95, 1)
    difference = first.astype(int) - second.astype(int)
    found = difference_interval(Pair.of(first, second, seed=3), draws=DRAWS)
    half = 1.96 * difference.std() / math.sqrt(900)
    assert found.low == pytest.approx(difference.mean() - half, abs=0.002)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.002)
    same = difference_interval(Pair.of(first, first, seed=3))
    assert (same.low, same.high) == (0, 0)


def test_a_mean_over_tasks_has_the_stratified_standard_error() -> None:
    pairs = [
        Pair.of(hits(n, p, i), hits(n, 0.95, 9 + i), seed=i)
        for i, (n, p) in enumerate([(300, 0.7), (800, 0.5), (150, 0.9)])
    ]
    interval, _ = mean_intervals(pairs, level=0.95, draws=DRAWS)
    shares = [(pair.both + pair.first) / pair.n for pair in pairs]
    error = math.sqrt(sum(p * (1 - p) / q.n for p, q in zip(shares, pairs, strict=True))) / 3
    centre = sum(shares) / 3
    assert interval.low == pytest.approx(centre - 1.96 * error, abs=0.06 * error)
    assert interval.high == pytest.approx(centre + 1.96 * error, abs=0.06 * error)


def test_the_multinomial_shortcut_equals_resampling_of_images() -> None:
    sets = [(hits(120, 0.75, 1), hits(120, 0.9, 2)), (hits(60, 0.55, 3), hits(60, 0.8, 4))]
    # Correlate them: images that are hard for the merge are hard for the expert.
    sets = [
        (merged & (expert | (np.arange(len(merged)) % 9 == 0)), expert) for merged, expert in sets
    ]
    random = np.random.default_rng(0)
    accuracy, relative = [], []
    for _ in range(DRAWS):
        own, ratio = [], []
        for merged, expert in sets:
            rows = random.integers(0, len(merged), len(merged))
            own.append(merged[rows].mean())
            ratio.append(merged[rows].mean() / expert[rows].mean())
        accuracy.append(np.mean(own))
        relative.append(np.mean(ratio))
    pairs = [Pair.of(merged, expert, seed=i) for i, (merged, expert) in enumerate(sets)]
    found = mean_intervals(pairs, level=0.9, draws=DRAWS)
    for interval, values in zip(found, (accuracy, relative), strict=True):
        spread = np.std(values)
        assert interval.low == pytest.approx(np.quantile(values, 0.05), abs=0.05 * spread)
        assert interval.high == pytest.approx(np.quantile(values, 0.95), abs=0.05 * spread)


def test_pairing_matters_and_equal_models_are_equal_for_sure() -> None:
    expert = hits(200, 0.85, 5)
    _, same = mean_intervals([Pair.of(expert, expert, seed=0)])
    assert (same.low, same.high) == (1.0, 1.0)
    _, other = mean_intervals([Pair.of(hits(200, 0.85, 6), expert, seed=0)])
    assert other.high - other.low > 0.02


@settings(max_examples=20)
@given(order=st.permutations(range(50)))
def test_the_order_of_images_does_not_matter(order: list[int]) -> None:
    merged, expert = hits(50, 0.6, 1), hits(50, 0.8, 2)
    shuffled = Pair.of(merged[order], expert[order], seed=4)
    assert mean_intervals([shuffled]) == mean_intervals([Pair.of(merged, expert, seed=4)])


def test_intervals_are_reproducible_and_seeded_by_task() -> None:
    merged, expert = hits(50, 0.6, 1), hits(50, 0.8, 2)
    one, other = Pair.of(merged, expert, seed=4), Pair.of(merged, expert, seed=5)
    assert mean_intervals([one]) == mean_intervals([one])
    assert not np.array_equal(resample(one, 50)[0], resample(other, 50)[0])


def test_an_expert_without_a_hit_gives_no_relative_interval() -> None:
    accuracy, relative = mean_intervals([Pair.of(hits(30, 0.5, 1), np.zeros(30, bool), seed=0)])
    assert 0 < accuracy.low < accuracy.high < 1
    assert math.isnan(relative.low)
    assert math.isnan(relative.high)
