"""The function-space ANOVA: Moebius inversion by brute force, planted functions, dense Gaussians."""

from __future__ import annotations

import time
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskgrid.evaluation.budget.anova import Surrogate, core_numbers, members, order_two_weights
from taskgrid.lattice.designs import Sample, draw_numbers

TASKS = 6
ALL = range(1 << TASKS)


def subsets_of(number: int) -> list[int]:
    """All subsets of a subset, itself and the empty one among them."""
    return [part for part in range(number + 1) if part & number == part]


def planted(order: int, seed: int, tasks: int = TASKS) -> dict[int, NDArray[np.float64]]:
    """A function on the lattice whose effects stop at an order; three values per subset."""
    random = np.random.default_rng(seed)
    effects = {
        number: random.normal(size=3) for number in range(1 << tasks) if number.bit_count() <= order
    }
    return summed(effects, tasks)


def summed(
    effects: Mapping[int, NDArray[np.float64]], tasks: int
) -> dict[int, NDArray[np.float64]]:
    return {
        number: np.sum([effects[part] for part in subsets_of(number) if part in effects], axis=0)
        for number in range(1 << tasks)
    }


def test_the_core_is_the_base_every_task_and_every_pair() -> None:
    assert core_numbers(3) == (0, 1, 2, 3, 4, 5, 6)
    assert len(core_numbers(20)) == 1 + 20 + 190
    assert core_numbers(20)[0] == 0
    assert members([5], 3).tolist() == [[1, 0, 1]]


@given(st.integers(0, 99))
def test_order_two_is_moebius_inversion_cut_off(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = {number: random.normal() for number in ALL}
    effects = {
        number: sum(
            (-1) ** (number.bit_count() - part.bit_count()) * values[part]
            for part in subsets_of(number)
        )
        for number in core_numbers(TASKS)
    }
    predicted = order_two_weights(ALL, TASKS) @ [values[number] for number in core_numbers(TASKS)]
    expected = [
        sum(effects[part] for part in subsets_of(number) if part.bit_count() <= 2) for number in ALL
    ]
    assert predicted == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("further", [(), (7, 63, 44)])
def test_what_has_effects_up_to_order_two_is_predicted_exactly(
    order: int, further: tuple[int, ...]
) -> None:
    surrogate = Surrogate(TASKS, further)
    values = planted(order, seed=order)
    known = np.stack([values[number] for number in surrogate.evaluated])
    expected = np.stack([values[number] for number in ALL])
    np.testing.assert_allclose(surrogate.weights(ALL) @ known, expected, atol=1e-9)


def test_effects_of_order_three_are_learned_from_the_triples() -> None:
    values = planted(3, seed=0)
    expected = np.stack([values[number] for number in ALL])
    core = np.stack([values[number] for number in core_numbers(TASKS)])
    missed = np.abs(order_two_weights(ALL, TASKS) @ core - expected)
    assert missed[[n.bit_count() > 2 for n in ALL]].max() > 1
    triples = tuple(number for number in ALL if number.bit_count() == 3)
    # Effects of order four and more are thought of as very small, as they are.
    surrogate = Surrogate(TASKS, triples, decay=1e-4)
    known = np.stack([values[number] for number in surrogate.evaluated])
    np.testing.assert_allclose(surrogate.weights(ALL) @ known, expected, atol=2e-2)


def kriged(known: tuple[int, ...], decay: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights, (P, known), and variances, (P,), of the best unbiased predictor, in rational numbers.

    The limit of a Gaussian posterior whose prior on the effects up to order two is flat: among the
    weights that are right whatever these effects are, those of the least variance. With K the
    covariance of the higher effects and F the membership of the lower ones, w solves
    ``[K F; F' 0] [w; m] = [k; f]``.
    """
    low = [number for number in ALL if number.bit_count() <= 2]
    high = [number for number in ALL if number.bit_count() > 2]
    power = {number: Fraction(decay) ** number.bit_count() for number in high}

    def covariance(one: int, other: int) -> Fraction:
        return sum((power[n] for n in high if n & one & other == n), Fraction())

    def flat(number: int) -> list[Fraction]:
        return [Fraction(part & number == part) for part in low]

    rows = [
        [covariance(a, b) for b in known] + flat(a) + [covariance(a, b) for b in ALL] for a in known
    ]
    for place, part in enumerate(low):
        holds = [Fraction(part & number == part) for number in known]
        rows.append(holds + [Fraction()] * len(low) + [flat(number)[place] for number in ALL])
    solved = eliminated(rows)
    weights = [[solved[row][at] for row in range(len(known))] for at in range(len(ALL))]
    variances = []
    for number, weight in zip(ALL, weights, strict=True):
        pairs = list(zip(known, weight, strict=True))
        cross = sum(w * covariance(a, number) for a, w in pairs)
        own = sum(w * v * covariance(a, b) for a, w in pairs if w for b, v in pairs if v)
        variances.append(covariance(number, number) - 2 * cross + own)
    return np.array(weights, dtype=float), np.array(variances, dtype=float)


def eliminated(rows: list[list[Fraction]]) -> list[list[Fraction]]:
    """Solve a square system by Gauss and Jordan; right-hand sides stand behind the matrix."""
    for column in range(len(rows)):
        pivot = next(row for row in range(column, len(rows)) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = 1 / rows[column][column]
        rows[column] = [value * inverse for value in rows[column]]
        for row in range(len(rows)):
            if row != column and (factor := rows[row][column]):
                rows[row] = [
                    value - factor * above if above else value
                    for value, above in zip(rows[row], rows[column], strict=True)
                ]
    return [row[len(rows) :] for row in rows]


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from([n for n in ALL if n.bit_count() > 2]), unique=True, max_size=12),
    st.sampled_from(["0.02", "0.3", "1.5"]),
)
# A prior that is merely wide (variance 1e5) against effects of variance 0.02 ** 4 loses all digits.
@example(further=[7, 11, 13, 14, 15], decay="0.02")
def test_it_is_the_gaussian_posterior_with_a_flat_prior_on_low_orders(
    further: list[int], decay: str
) -> None:
    surrogate = Surrogate(TASKS, tuple(further), float(decay))
    weights, variances = kriged(surrogate.evaluated, decay)
    np.testing.assert_allclose(surrogate.weights(ALL), weights, atol=1e-5)
    largest = variances.max(initial=1e-300)
    np.testing.assert_allclose(surrogate.variance(ALL), variances, atol=1e-7 * largest)


def test_the_variance_is_that_of_random_effects() -> None:
    decay, draws = 0.4, 4000
    random = np.random.default_rng(0)
    surrogate = Surrogate(TASKS, (7, 56, 63), decay)
    effects = {
        number: decay ** (number.bit_count() / 2) * random.normal(size=draws) for number in ALL
    }
    values = summed(effects, TASKS)
    known = np.stack([values[number] for number in surrogate.evaluated])
    errors = surrogate.weights(ALL) @ known - np.stack([values[number] for number in ALL])
    expected = surrogate.variance(ALL)
    np.testing.assert_allclose(errors.var(axis=1), expected, rtol=0.12, atol=1e-6)


@pytest.mark.parametrize("further", [(), (7, 60)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_next_ones_are_chosen_as_if_each_had_been_evaluated(
    further: tuple[int, ...], seed: int
) -> None:
    importance = np.random.default_rng(seed).uniform(0.2, 1, len(ALL))
    surrogate = Surrogate(TASKS, further, 0.3)
    chosen = surrogate.most_uncertain(list(ALL), 6, importance)
    known = list(further)
    for number in chosen:
        variance = Surrogate(TASKS, tuple(known), 0.3).variance(ALL)
        best = int(np.argmax(importance * np.sqrt(variance)))
        assert number == best
        known.append(best)
    assert len(set(chosen)) == 6


def test_nothing_is_chosen_twice_and_nothing_that_is_known() -> None:
    surrogate = Surrogate(4, (), 0.3)
    chosen = surrogate.most_uncertain(list(range(16)), 100)
    assert sorted(chosen) == [7, 11, 13, 14, 15]


def test_twenty_tasks_are_no_trouble() -> None:
    numbers = draw_numbers(20, Sample(total=2000).counts(20), 0)
    large = [number for number in numbers if number.bit_count() > 2]
    started = time.process_time()
    further = Surrogate(20, (), 0.05).most_uncertain(large, 60)
    weights = Surrogate(20, further, 0.05).weights(numbers)
    assert time.process_time() - started < 4
    assert weights.shape == (2000, 211 + 60)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
