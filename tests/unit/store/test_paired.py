"""Paired tests against exact laws: McNemar's by binomials, stratified sums by brute force, Holm by hand."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from taskgrid.store.intervals import Pair, difference_interval
from taskgrid.store.paired import (
    difference_p_value,
    holm,
    mean_difference,
    mean_difference_interval,
)

DRAWS = 200_000
COUNTED = st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from([20, 30, 45]))


def pair(first: int, second: int, n: int = 100, seed: int = 0) -> Pair:
    return Pair(n - first - second, first, second, 0, seed)


@pytest.mark.parametrize(("first", "second"), [(9, 1), (12, 8), (5, 5), (0, 0), (30, 12)])
def test_of_one_task_it_is_mcnemars_exact_test(first: int, second: int) -> None:
    exact = binomtest(first, first + second).pvalue if first + second else 1.0
    found = difference_p_value([pair(first, second)], draws=DRAWS, seed=1)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / DRAWS) + 1e-5)


def by_all_outcomes(pairs: list[Pair]) -> float:
    """Every way in which the images that differ could have gone, weighted by its chance."""
    seen = abs(sum(Fraction(p.first - p.second, p.n) for p in pairs))
    total = Fraction(0)
    for won in itertools.product(*(range(p.first + p.second + 1) for p in pairs)):
        chance, score = Fraction(1), Fraction(0)
        for p, count in zip(pairs, won, strict=True):
            differing = p.first + p.second
            chance *= Fraction(comb(differing, count), 2**differing)
            score += Fraction(2 * count - differing, p.n)
        total += chance if abs(score) >= seen else 0
    return float(total)


@settings(max_examples=15)
@given(st.lists(COUNTED, min_size=1, max_size=3))
def test_of_several_tasks_it_is_the_share_of_all_outcomes(
    found: list[tuple[int, int, int]],
) -> None:
    pairs = [pair(*one) for one in found]
    exact = by_all_outcomes(pairs)
    drawn = difference_p_value(pairs, draws=DRAWS, seed=2)
    assert drawn == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / DRAWS) + 1e-5)


def test_the_mean_weighs_tasks_alike() -> None:
    pairs = [pair(10, 0, n=100), pair(0, 10, n=1000)]
    assert mean_difference(pairs) == pytest.approx((0.1 - 0.01) / 2)
    interval = mean_difference_interval(pairs)
    assert interval.low < 0.045 < interval.high
    one = [pair(20, 10, seed=3)]
    assert mean_difference_interval(one) == difference_interval(one[0])


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, and never less than the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
