"""Interpolated lambda curves: closed forms, polynomials, functions with known poles, brute force."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import BarycentricInterpolator

from taskgrid.errors import ConfigError
from taskgrid.evaluation.curves import curves
from taskgrid.evaluation.curves.curves import CurveRow, exact_row, interpolate, trace_curve
from taskgrid.evaluation.curves.interpolation import Interpolant, barycentric, chunks
from taskgrid.evaluation.engine import measure
from taskgrid.evaluation.engine.odds import odds_against
from taskgrid.lattice.nodes import CurveSpec, node_levels, plan_nodes
from taskgrid.lattice.points import format_lambda, lambda_value

SWEEP = tuple(format_lambda(step / 40) for step in range(41))


def network(images: int, classes: int, seed: int, bend: float = 1.0) -> Callable[[float], NDArray]:
    """Logits of a small random network whose weights move with lambda: smooth, not polynomial."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(images, 6))
    first, second = random.normal(size=(6, 8)), random.normal(size=(8, 5))
    moved = bend * random.normal(size=(6, 8)), bend * random.normal(size=(8, 5))
    head = random.normal(size=(5, classes))

    def logits(scale: float) -> NDArray:
        hidden = np.tanh(x @ (first + 0.5 * scale * moved[0]))
        features = hidden @ (second + 0.5 * scale * moved[1])
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        return (10 * unit @ head).astype(np.float32)

    return logits


@pytest.mark.parametrize("count", [3, 5, 8, 17])
def test_nodes_are_those_of_chebyshev(count: int) -> None:
    second = plan_nodes(-1, 1, count)
    assert second == pytest.approx(-np.cos(np.pi * np.arange(count) / (count - 1)), abs=5.1e-7)
    assert (second[0], second[-1]) == (-1, 1)


@given(st.integers(3, 12), st.floats(-2, 1), st.floats(0.1, 3))
def test_nodes_are_nested_and_lambdas(count: int, low: float, width: float) -> None:
    high = low + width
    nodes = plan_nodes(low, high, count)
    assert list(nodes) == sorted(set(nodes))
    assert set(nodes) <= set(plan_nodes(low, high, 2 * count - 1))
    assert [lambda_value(format_lambda(node)) for node in nodes] == list(nodes)


def test_nodes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 3 nodes, not 2"):
        plan_nodes(0, 1, 2)
    with pytest.raises(ConfigError, match="9 nodes between 0 and 1e-05 are closer"):
        plan_nodes(0, 1e-5, 9)


@settings(max_examples=60)
@given(st.integers(3, 17), st.integers(0, 99))
def test_the_matrix_is_that_of_scipy_and_reproduces_polynomials(count: int, seed: int) -> None:
    nodes = np.array(plan_nodes(0.0, 1.5, count))
    random = np.random.default_rng(seed)
    points = np.concatenate([random.uniform(0, 1.5, 9), nodes[:2]])
    matrix = barycentric(nodes, points)
    values = random.normal(size=count)
    assert matrix @ values == pytest.approx(BarycentricInterpolator(nodes, values)(points))
    np.testing.assert_array_equal(matrix[9:], np.eye(count)[:2])
    polynomial = np.polynomial.Polynomial(random.normal(size=count))
    assert matrix @ polynomial(nodes) == pytest.approx(polynomial(points), abs=1e-9)


def test_values_are_those_of_a_polynomial_per_image_and_class() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(6, 4, 3))
    nodes = np.array(plan_nodes(0, 1, 7))
    exact = np.tensordot(np.vander(nodes, 6), weights, 1)
    fit = Interpolant.fit(nodes, exact)
    points = random.uniform(0, 1, 20)
    np.testing.assert_allclose(fit.at(points), np.tensordot(np.vander(points, 6), weights, 1))
    assert fit.bound(points).max() < 2e-3
    assert fit.at(points, slice(1, 3)).shape == (20, 2, 3)
    assert fit.bound(points, slice(1, 3)).shape == (20, 2)


@pytest.mark.parametrize("count", [5, 7, 9, 13])
def test_the_bound_holds_for_functions_with_poles_at_known_places(count: int) -> None:
    """1/(x - p) has Chebyshev coefficients that fall like rho^-k, rho given by the pole."""
    random = np.random.default_rng(count)
    poles = random.uniform(1.15, 3, (200, 4)) * random.choice([-1, 1], (200, 4))
    size = random.normal(size=(200, 4))

    def values(points: NDArray) -> NDArray:
        return size / (points[:, None, None] - poles)

    nodes = np.array(plan_nodes(-1, 1, count))
    fit = Interpolant.fit(nodes, values(nodes))
    points = np.linspace(-1, 1, 101)
    errors = np.abs(fit.at(points) - values(points)).max(axis=2)
    assert np.mean(errors > fit.bound(points)) < 0.002
    # It is no wild guess, either: a few dozen times the error, not thousands.
    assert np.median(fit.bound(points).max(axis=0) / errors.max(axis=0)) < 60


@pytest.mark.parametrize("bend", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("count", [7, 9, 13])
def test_the_bound_holds_for_a_network(count: int, bend: float) -> None:
    missed, loose = 0.0, []
    for seed in range(8):
        logits = network(150, 6, seed, bend)
        nodes = np.array(plan_nodes(0, 1, count))
        fit = Interpolant.fit(nodes, np.stack([logits(node) for node in nodes]))
        points = np.random.default_rng(seed).uniform(0, 1, 25)
        exact = np.stack([logits(point) for point in points]).astype(np.float64)
        errors = np.abs(fit.at(points) - exact).max(axis=2)
        missed += np.mean(errors > fit.bound(points)) / 8
        loose.append(np.median(fit.bound(points)))
    assert missed < 0.001
    assert np.median(loose) < {7: 3.0, 9: 1.0, 13: 0.2}[count] * bend


def test_a_kink_is_noticed() -> None:
    nodes = np.array(plan_nodes(0, 1, 9))
    kinks = np.random.default_rng(0).uniform(0.2, 0.8, (50, 3))
    fit = Interpolant.fit(nodes, np.abs(nodes[:, None, None] - kinks))
    points = np.linspace(0, 1, 41)
    errors = np.abs(fit.at(points) - np.abs(points[:, None, None] - kinks)).max(axis=2)
    assert np.mean(errors > fit.bound(points)) < 0.01
    assert fit.bound(points).max(axis=0).min() > 0.05


def test_left_out_nodes_raise_a_bound_that_is_too_small_for_them() -> None:
    # Only even polynomials of high degree: coefficients of the coarse nodes say there is nothing.
    nodes = np.array(plan_nodes(-1, 1, 9))
    rough = 1e-3 * np.polynomial.chebyshev.chebval(nodes, [0] * 6 + [1])[:, None, None]
    smooth = np.polynomial.chebyshev.chebval(nodes, [1, 1e-2, 1e-4])[:, None, None]
    values = np.broadcast_to(rough + smooth, (9, 40, 2))
    assert (
        Interpolant.fit(nodes, values, safety=1e-9).tail.min()
        > 1e-9 * Interpolant.fit(nodes, values, safety=1).tail.max()
    )


def test_memory_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = network(50, 6, 0)
    nodes = np.array(plan_nodes(0, 1, 7))
    values = np.stack([logits(node) for node in nodes])
    whole = Interpolant.fit(nodes, values)
    monkeypatch.setattr("taskgrid.evaluation.curves.interpolation._CHUNK", 7 * 6 * 8)
    assert [part.stop - part.start for part in chunks(values)] == [8] * 7
    pieces = Interpolant.fit(nodes, values)
    np.testing.assert_allclose(whole.bound([0.3]), pieces.bound([0.3]), rtol=1e-12)


def brute(logits: Callable[[float], NDArray], labels: NDArray, scale: str) -> CurveRow:
    return exact_row(scale, odds_against(logits(lambda_value(scale)), labels), labels)


@pytest.mark.parametrize("bend", [0.3, 1.5])
@pytest.mark.parametrize("tolerance", [0.0, 0.01, 1.0])
def test_every_row_of_a_curve_keeps_its_bounds(bend: float, tolerance: float) -> None:
    loose = checked = 0
    for seed in range(6):
        logits = network(150, 6, seed, bend)
        labels = np.random.default_rng(seed).integers(0, 6, 150)
        asked: list[str] = []

        def logits_at(scale: str, logits=logits, asked=asked) -> NDArray:
            asked.append(scale)
            return logits(lambda_value(scale))

        curve = trace_curve(logits_at, labels, SWEEP, CurveSpec(tolerance=tolerance))
        assert [row.scale for row in curve.rows] == list(SWEEP)
        assert curve.evaluated == tuple(asked)
        assert len(set(asked)) == len(asked)
        assert len(asked) <= len(SWEEP) + 12
        for row in curve.rows:
            exact = brute(logits, labels, row.scale)
            assert row.exact == (row.scale in curve.evaluated)
            assert row.bound <= tolerance
            if row.exact:
                np.testing.assert_array_equal(row.hits, exact.hits)
                assert (row.nll, row.ece) == (exact.nll, exact.ece)
                assert (row.bound, row.nll_bound, row.ece_bound) == (0, 0, 0)
                continue
            checked += 1
            assert np.array_equal(row.hits[row.certain], exact.hits[row.certain])
            assert abs(row.correct - exact.correct) <= round(row.bound * 150)
            assert abs(row.nll - exact.nll) <= row.nll_bound
            assert abs(row.ece - exact.ece) <= row.ece_bound
            loose += row.bound > 0
    assert checked > 20
    assert (loose > 0) == (tolerance > 0)


def test_exact_rows_are_those_of_the_kernel() -> None:
    import torch

    logits = network(150, 6, 3)(0.7)
    labels = np.random.default_rng(0).integers(0, 6, 150)
    row = exact_row("0.70", odds_against(logits, labels), labels)
    probability = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    np.testing.assert_array_equal(row.hits, probability.argmax(axis=1) == labels)
    assert row.nll == pytest.approx(-np.log(probability[np.arange(150), labels]).mean(), rel=1e-5)
    confidence = probability.max(axis=1)
    assert row.ece == pytest.approx(
        measure.expected_calibration_error(row.hits, confidence), abs=1e-6
    )
    default = inspect.signature(measure.expected_calibration_error).parameters["bins"].default
    assert default == curves.CALIBRATION_BINS


def test_a_tolerance_that_nothing_meets_costs_no_more_than_the_nodes() -> None:
    kinks = np.random.default_rng(0).uniform(0.1, 0.9, (60, 3))
    labels = np.zeros(60, dtype=np.int64)
    curve = trace_curve(
        lambda scale: np.abs(lambda_value(scale) - kinks), labels, SWEEP, CurveSpec(tolerance=0)
    )
    assert len(curve.evaluated) <= 1.5 * len(SWEEP)
    for row in curve.rows:
        if row.exact:
            assert row.scale in curve.evaluated


def test_few_lambdas_are_evaluated_as_they_are() -> None:
    logits = network(30, 4, 0)
    labels = np.zeros(30, dtype=np.int64)
    for asked in (["0.30"], ["1.00", "0.00", "0.50"], [f"{i / 10:.2f}" for i in range(7)]):
        curve = trace_curve(lambda scale: logits(float(scale)), labels, asked)
        assert list(curve.evaluated) == sorted(asked)
        assert all(row.exact for row in curve.rows)


def test_levels_are_nested_and_stop_where_they_cost_more_than_they_save() -> None:
    levels = node_levels(SWEEP, 7)
    assert [len(level) for level in levels] == [7, 13, 25]
    for left, right in itertools.pairwise(levels):
        assert set(left) <= set(right)
    assert levels[0][0] == "0.00"
    assert levels[0][-1] == "1.00"
    assert node_levels(["0.30"], 7) == ()
    assert node_levels(SWEEP[:7], 7) == ()
    assert [len(level) for level in node_levels(SWEEP[:12], 7)] == [7]


def test_values_that_are_no_numbers_are_never_certain() -> None:
    logits = network(30, 4, 0)
    labels = np.zeros(30, dtype=np.int64)
    nodes = node_levels(SWEEP, 7)[0]
    values = np.stack([odds_against(logits(float(node)), labels) for node in nodes])
    values[3, 5, 2] = np.nan
    with np.errstate(invalid="ignore"):
        rows = interpolate(nodes, values, labels, ["0.33"])
    assert not rows[0].certain.any()
    assert rows[0].bound > 0.3
    broken = exact_row("0.00", values[3], labels)
    assert not broken.hits[5]
    assert math.isnan(broken.nll)
