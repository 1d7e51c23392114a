"""What an audit says about the rest: every sample of small populations, listed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from taskgrid.evaluation.budget.audit import conformal_limit, most_beyond, rest_limit, rest_mean
from taskgrid.lattice.budgets import enough_for


@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=8),
    st.sampled_from([0.5, 0.6, 0.75, 0.8]),
    st.data(),
)
def test_a_member_outside_keeps_the_limit_as_often_as_promised(
    values: list[int], level: float, data: st.DataObject
) -> None:
    audited = data.draw(st.integers(1, len(values) - 1))
    kept = total = 0
    for sample in itertools.combinations(range(len(values)), audited):
        limit = conformal_limit([values[index] for index in sample], level)
        for index in set(range(len(values))) - set(sample):
            kept += values[index] <= limit
            total += 1
    assert kept / total >= level - 1e-12


@pytest.mark.parametrize(("level", "needed"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_too_few_audits_promise_nothing(level: float, needed: int) -> None:
    assert enough_for(level) == needed
    assert math.isfinite(conformal_limit(range(needed), level))
    assert conformal_limit(range(needed - 1), level) == math.inf


@pytest.mark.parametrize("exceeding", [0, 1, 2])
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_so_many_beyond_and_no_more(exceeding: int, confidence: float) -> None:
    population, audited = 11, 5
    limits = [most_beyond(found, audited, population, confidence) for found in range(audited + 1)]
    covered = {}
    for beyond in range(population + 1):
        # `beyond` bad members in all; the limit is fixed, the audit sees some of them.
        seen = held = 0
        for sample in itertools.combinations(range(population), audited):
            found = sum(index < beyond for index in sample)
            held += beyond - found <= limits[found]
            seen += 1
        covered[beyond] = held / seen
    assert min(covered.values()) >= confidence
    # And with the limit read from the audit as its (m - exceeding)-th smallest score:
    held = 0
    samples = list(itertools.combinations(range(population), audited))
    for sample in samples:
        limit = sorted(sample)[audited - exceeding - 1]
        outside = sum(index > limit for index in set(range(population)) - set(sample))
        held += outside <= limits[exceeding]
    assert held / len(samples) >= confidence


@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 3))
def test_the_search_finds_what_a_scan_finds(rest: int, audited: int, exceeding: int) -> None:
    population = rest + audited
    exceeding = min(exceeding, audited)
    open_numbers = [
        beyond
        for beyond in range(1, rest + 1)
        if hypergeom.cdf(exceeding, population, exceeding + beyond, audited) > 0.05 + 1e-9
    ]
    assert most_beyond(exceeding, audited, population, 0.95) == max(open_numbers, default=0)


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.9, 1.0]), min_size=4, max_size=10),
    st.sampled_from([0.5, 0.8, 0.9]),
    st.sampled_from([1.0, 1.5]),
    st.data(),
)
def test_the_limit_of_a_mean_holds_for_whatever_the_values_are(
    values: list[float], confidence: float, largest: float, data: st.DataObject
) -> None:
    audited = data.draw(st.integers(1, len(values) - 1))
    held = total = 0
    limits: dict[tuple[float, ...], float] = {}
    for sample in itertools.combinations(range(len(values)), audited):
        seen = tuple(sorted(values[index] for index in sample))
        if seen not in limits:
            limits[seen] = rest_limit(seen, len(values), confidence, largest)
        held += (sum(values) - sum(seen)) / (len(values) - audited) <= limits[seen] + 1e-9
        total += 1
    assert held / total >= confidence - 1e-12


def test_the_limit_of_a_mean_is_no_wider_than_it_must_be() -> None:
    # Of zeros: the hypergeometric number, and one for values between.
    for population in (40, 196, 1000):
        rest = population - 20
        unseen = most_beyond(0, 20, population, 0.95)
        assert rest_limit([0.0] * 20, population, 0.95, 0.05) == pytest.approx(
            0.05 * (unseen + 1) / rest
        )
    assert rest_limit([1.0] * 20, 196, 0.95, 1.0) == 1.0
    assert rest_limit([0.0] * 20, 20, 0.95, 1.0) == 0.0
    assert rest_limit([0.0] * 20, 196, 0.95, 0.0) == 0.0
    seen = np.random.default_rng(0).uniform(size=20)
    limits = [rest_limit(seen, 196, level, 1.0) for level in (0.5, 0.9, 0.99)]
    assert seen.mean() < limits[0] < limits[1] < limits[2] < seen.mean() + 0.4


@pytest.mark.parametrize("bad", [3, 6, 10, 20])
@pytest.mark.parametrize("size", [10 / 200, 40 / 200])
def test_rare_and_large_errors_are_covered(bad: int, size: float) -> None:
    """Few merges of 196 are far off, all others right; the audit of 20 often sees none of them."""
    random = np.random.default_rng([bad, int(1000 * size)])
    population, audited, turns = 196, 20, 300
    limits: dict[int, tuple[float, float, float]] = {}
    held = inside = 0
    for _ in range(turns):
        seen = int(random.hypergeometric(bad, population - bad, audited))
        if seen not in limits:
            values = [size] * seen + [0.0] * (audited - seen)
            found = rest_mean(values, population, 0.95, 0.0, size)
            limits[seen] = (found.low, found.high, rest_limit(values, population, 0.95, size))
        low, high, limit = limits[seen]
        truth = (bad - seen) * size / (population - audited)
        held += truth <= limit
        inside += low <= truth <= high
    assert held / turns >= 0.95
    assert inside / turns >= 0.95


@pytest.mark.parametrize("shape", [1.0, 4.0])
def test_the_interval_of_the_rest_covers_its_mean(shape: float) -> None:
    random = np.random.default_rng(0)
    below = above = 0
    for _ in range(1500):
        values = random.gamma(shape, size=120)
        found = rest_mean(values[:25], 120, 0.9, 0.0, 100.0)
        below += found.high < values[25:].mean()
        above += found.low > values[25:].mean()
    assert 0.03 < below / 1500 < 0.075
    assert 0.02 < above / 1500 < 0.075


def test_the_interval_knows_no_sides_and_no_errors_where_there_are_none() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=25)
    mirrored = rest_mean(-values, 120, 0.9, -100.0, 100.0)
    straight = rest_mean(values, 120, 0.9, -100.0, 100.0)
    assert (mirrored.low, mirrored.high) == pytest.approx((-straight.high, -straight.low))
    everyone = rest_mean(values, 25, 0.9, 0.0, 100.0)
    assert (everyone.low, everyone.high) == (0, 0)
    # Without skew it is Student's t.
    even = rest_mean([1.0, 2.0, 3.0], 10**9, 0.95, -100.0, 100.0)
    assert even.high == pytest.approx(2 + 4.3026527 / math.sqrt(3))
    # And it ends where values end.
    assert rest_mean([1.0, 2.0, 3.0], 10**9, 0.95, 0.0, 100.0).low == 0.0
    assert rest_mean([1.0, 2.0, 3.0], 10**9, 0.95, 0.0, 3.5).high == 3.5


@pytest.mark.parametrize("value", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("other", [0, 1])
def test_an_audit_that_sees_no_spread_claims_no_certainty(value: float, other: int) -> None:
    """Floats that are equal, also where their mean is not quite the value; one other changes little."""
    values = [value] * (20 - other) + [value + 0.05] * other
    found = rest_mean(values, 196, 0.95, 0.0, 0.5)
    assert found.high >= rest_limit(values, 196, 0.95, 0.5) > np.mean(values) + 0.02
    assert 0.0 <= found.low <= max(0.0, value - 0.01)
    signed = rest_mean([0.0] * 20, 196, 0.95, -0.5, 0.5)
    assert signed.low < -0.05 < 0.05 < signed.high
    assert (signed.low, signed.high) == pytest.approx((-signed.high, -signed.low))
