"""What an audit says about the rest: every sample of small populations, listed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from taskgrid.designs import enough_for
from taskgrid.evaluation.audit import conformal_limit, most_beyond, rest_mean


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


@pytest.mark.parametrize("shape", [1.0, 4.0])
def test_the_interval_of_the_rest_covers_its_mean(shape: float) -> None:
    random = np.random.default_rng(0)
    below = above = 0
    for _ in range(1500):
        values = random.gamma(shape, size=120)
        found = rest_mean(values[:25], 120, 0.9)
        below += found.high < values[25:].mean()
        above += found.low > values[25:].mean()
    assert 0.03 < below / 1500 < 0.075
    assert 0.02 < above / 1500 < 0.075


def test_the_interval_knows_no_sides_and_no_errors_where_there_are_none() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=25)
    mirrored, straight = rest_mean(-values, 120, 0.9), rest_mean(values, 120, 0.9)
    assert (mirrored.low, mirrored.high) == pytest.approx((-straight.high, -straight.low))
    everyone = rest_mean(values, 25, 0.9)
    assert (everyone.low, everyone.high) == (0, 0)
    assert rest_mean([0.25] * 9, 30, 0.9).high == 0.25
    # Without skew it is Student's t.
    even = rest_mean([1.0, 2.0, 3.0], 10**9, 0.95)
    assert even.high == pytest.approx(2 + 4.3026527 / math.sqrt(3))
