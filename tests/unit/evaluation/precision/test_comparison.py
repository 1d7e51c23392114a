from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from taskgrid.evaluation.precision.comparison import Comparison, compare, paired_interval, together
from tests.unit.exact_comparison import brute_force

finite = st.floats(-50, 50, width=32)
pairs = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.float32, shape, elements=finite),
        arrays.arrays(np.float32, shape, elements=st.floats(-3, 3, width=32)),
        arrays.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
    )
)


# --- comparing logits ------------------------------------------------------------------------------


@given(pairs)
def test_counts_and_differences_are_those_of_exact_arithmetic(given: Any) -> None:
    exact, noise, labels = given
    reduced = (exact + noise).astype(np.float32)
    found, expected = (
        compare("base", "a", exact, reduced, labels),
        brute_force(exact, reduced, labels),
    )
    assert found.largest == pytest.approx(expected["largest"], rel=1e-12, abs=1e-300)
    assert found.mean == pytest.approx(expected["mean"], rel=1e-9, abs=1e-300)
    assert found.correct == expected["correct"]
    assert found.correct_reduced == expected["correct_reduced"]
    assert [flip.image for flip in found.flips] == expected["changed"]
    assert found.changed == len(expected["changed"])
    assert found.difference == pytest.approx(
        (expected["correct_reduced"] - expected["correct"]) / len(labels)
    )


@given(pairs)
def test_every_changed_class_was_a_close_call(given: Any) -> None:
    exact, noise, labels = given
    found = compare("base", "a", exact, (exact + noise).astype(np.float32), labels)
    assert found.unexplained == 0
    for flip in found.flips:
        assert flip.margin <= 2 * flip.difference <= 2 * found.largest


@given(pairs)
def test_equal_logits_differ_in_nothing(given: Any) -> None:
    exact, _, labels = given
    found = compare("merge", "a", exact, exact.copy(), labels)
    assert (found.largest, found.mean, found.changed, found.difference) == (0, 0, 0, 0)
    assert found.passes(0.0)


@given(pairs)
def test_swapping_the_precisions_turns_every_sign(given: Any) -> None:
    exact, noise, labels = given
    reduced = (exact + noise).astype(np.float32)
    one, two = (
        compare("base", "a", *sides, labels) for sides in ((exact, reduced), (reduced, exact))
    )
    assert (one.largest, one.mean, one.changed) == (two.largest, two.mean, two.changed)
    assert one.difference == -two.difference
    assert one.interval == pytest.approx((-two.interval[1], -two.interval[0]))


def test_planted_flips_are_found_with_their_margins() -> None:
    exact = np.array([[3, 1, 0], [1, 1.5, 0], [0, 0, 4], [2, 1, 0]], dtype=np.float32)
    reduced = exact.copy()
    reduced[1] = [1.75, 1.5, 0]  # right to wrong, margin 0.5, moved by 0.75
    reduced[3] = [2, 2.5, 0]  # wrong to right, margin 1, moved by 1.5
    found = compare("experts", "a", exact, reduced, np.array([0, 1, 2, 1]))
    assert (found.correct, found.only_fp32, found.only_reduced) == (3, 1, 1)
    assert [(f.image, f.before, f.after, f.margin, f.difference) for f in found.flips] == [
        (1, 1, 0, 0.5, 0.75),
        (3, 0, 1, 1.0, 1.5),
    ]
    assert all(flip.explained for flip in found.flips)
    # Both logits moved by 0.6, so a margin of 1 could be overcome, and one of 2 could not.
    (close,) = compare(
        "base", "a", np.array([[1.0, 0.0]]), np.array([[0.4, 0.6]]), np.array([0])
    ).flips
    assert close.explained
    assert not replace(close, margin=2.0).explained


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_is_never_right_and_never_passes(bad: float) -> None:
    exact = np.eye(3, dtype=np.float32)
    reduced = exact.copy()
    reduced[2, 0] = bad
    found = compare("base", "a", exact, reduced, np.arange(3))
    assert (found.correct_reduced, found.broken, found.changed, found.unexplained) == (2, 1, 1, 1)
    assert not found.passes(0.99)
    assert math.isfinite(found.largest)
    same = compare("base", "a", reduced, reduced, np.arange(3))
    assert (same.broken, same.changed, same.correct) == (0, 0, 2)


def test_logits_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same images"):
        compare("base", "a", np.zeros((3, 2)), np.zeros((4, 2)), np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="same images"):
        compare("base", "a", np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(4, dtype=np.int64))


@given(pairs, pairs)
def test_all_tasks_together_are_their_images_in_one_set(one: Any, two: Any) -> None:
    classes = max(one[0].shape[1], two[0].shape[1])

    def padded(logits: Any) -> Any:
        # Classes that never win and never move; the means then have the same number of them.
        return np.pad(logits, ((0, 0), (0, classes - logits.shape[1])), constant_values=-1000)

    sides = [
        (padded(exact), padded((exact + noise).astype(np.float32)), labels)
        for exact, noise, labels in (one, two)
    ]
    whole = compare("base", "a", *(np.concatenate(parts) for parts in zip(*sides, strict=True)))
    found = together([compare("base", "a", *side) for side in sides])
    assert found.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-300)
    assert replace(found, task="a", mean=0, flips=()) == replace(whole, mean=0, flips=())


# --- the interval ----------------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_the_interval_holds_the_difference_and_is_antisymmetric(b: int, c: int, rest: int) -> None:
    n = b + c + rest + 1
    low, high = paired_interval(b, c, n)
    assert -1 <= low <= (c - b) / n <= high <= 1
    assert paired_interval(c, b, n) == pytest.approx((-high, -low))


def test_the_interval_covers_what_it_says() -> None:
    """Sum the exact trinomial probabilities of all outcomes whose interval holds the truth."""
    n, found = 40, []
    table = {(b, c): paired_interval(b, c, n) for b in range(n + 1) for c in range(n + 1 - b)}
    for first, second in itertools.product((0.01, 0.05, 0.1, 0.25), repeat=2):
        rest = 1 - first - second
        found.append(
            math.fsum(
                math.comb(n, b) * math.comb(n - b, c) * first**b * second**c * rest ** (n - b - c)
                for (b, c), (low, high) in table.items()
                if low <= second - first <= high
            )
        )
    assert min(found) > 0.93
    assert sum(found) / len(found) < 0.99


def test_a_comparison_knows_its_numbers() -> None:
    one = Comparison("base", "a", 200, 0.5, 0.1, 150, 4, 2, 9, 0, 0)
    assert one.correct_reduced == 148
    assert one.difference == pytest.approx(-0.01)
