"""Accuracy as a function of real lambda: brute force, ties, plateaus, the table."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.errors import ArtifactError, DataError
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.runner import run_reference
from taskgrid.evaluation.tangent.continuous import (
    Intervals,
    StepCurve,
    best_scale,
    right_intervals,
    step_curve,
)
from taskgrid.evaluation.tangent.peaks import CONTINUOUS, collect_peaks, peaks_table
from taskgrid.models.heads import Head
from taskgrid.store.features import FeatureStore
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from tests.unit.evaluation.tangent.test_tangent import Oracle, engine
from tests.unit.example_grid import World, held, world
from tests.unit.example_plans import method


def curve_of(start: Any, slope: Any, labels: Any) -> StepCurve:
    return step_curve(right_intervals(np.asarray(start), np.asarray(slope), np.asarray(labels)))


def brute(start: Any, slope: Any, labels: Any, scale: float) -> int:
    """One lambda, one image after the other: the first of the largest logits."""
    right = 0
    for a, b, label in zip(start, slope, labels, strict=True):
        logits = [x + scale * y for x, y in zip(a, b, strict=True)]
        if not any(math.isnan(value) for value in logits):
            right += logits.index(max(logits)) == label
    return right


# --------------------------------------------------------------------------------- intervals


def test_the_curve_equals_brute_force_at_random_lambdas() -> None:
    random = np.random.default_rng(0)
    start, slope = random.normal(size=(2, 300, 12))
    labels = random.integers(0, 12, 300)
    curve = curve_of(start, slope, labels)
    scales = np.concatenate([random.uniform(-4, 4, 190), random.normal(size=10) * 1e3])
    assert curve.counts(scales).tolist() == [brute(start, slope, labels, x) for x in scales]
    assert 20 < curve.counts([0.0])[0] < 280
    assert curve.accuracy(scales).tolist() == (curve.counts(scales) / 300).tolist()


# Small whole numbers: every kind of tie occurs, and every root is exact in a float or far from a tie.
whole = st.integers(-2, 2)
images = st.lists(
    st.tuples(st.lists(whole, min_size=3, max_size=3), st.lists(whole, min_size=3, max_size=3)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200)
@given(rows=images, label=st.integers(0, 2))
def test_ties_go_to_the_first_class(rows: list[Any], label: int) -> None:
    start, slope = (np.array([row[at] for row in rows], dtype=float) for at in (0, 1))
    labels = np.full(len(rows), label)
    curve = curve_of(start, slope, labels)
    # Roots are quotients of numbers up to 4; these scales hold all of them that are exact, and more.
    scales = [*np.arange(-5, 5.25, 0.25), -1e6, 1e6, 1 / 3 + 1e-6, 1 / 3 - 1e-6]
    assert curve.counts(scales).tolist() == [brute(start, slope, labels, x) for x in scales]


def test_one_image_by_hand() -> None:
    # Right class: 1. Class 0 says 1 - lambda, class 1 says lambda, class 2 says 4 lambda - 6.
    start, slope = [[1.0, 0.0, -6.0]], [[-1.0, 1.0, 4.0]]
    found = right_intervals(np.array(start), np.array(slope), np.array([1]))
    assert (found.low.tolist(), found.high.tolist()) == ([0.5], [2.0])
    # At 0.5 the earlier class 0 ties and wins; at 2 the later class 2 ties and loses.
    assert (found.low_open.tolist(), found.high_open.tolist()) == ([True], [False])
    curve = step_curve(found)
    assert curve.counts([0.5, 0.500001, 2.0, 2.000001, -9.0, 9.0]).tolist() == [0, 1, 1, 0, 0, 0]


def test_degenerate_images() -> None:
    nan, inf = math.nan, math.inf
    cases = [
        # A line that stands still: right everywhere, or by a tie with a later or an earlier class.
        ([2.0, 1.0], [1.0, 1.0], 0, [1, 1, 1]),
        ([1.0, 1.0], [0.0, 0.0], 0, [1, 1, 1]),
        ([1.0, 1.0], [0.0, 0.0], 1, [0, 0, 0]),
        ([1.0, 2.0], [3.0, 3.0], 0, [0, 0, 0]),
        # Right at a single point, where a later class takes over; never, where an earlier one does.
        ([0.0, 0.0, 0.0], [0.0, 1.0, -1.0], 0, [0, 1, 0]),
        ([0.0, 0.0, 0.0], [1.0, -1.0, 0.0], 2, [0, 0, 0]),
        ([nan, 0.0], [0.0, 0.0], 1, [0, 0, 0]),
        ([0.0, 1.0], [0.0, inf], 1, [0, 0, 0]),
    ]
    for start, slope, label, expected in cases:
        curve = curve_of([start], [slope], [label])
        assert curve.counts([-1.0, 0.0, 1.0]).tolist() == expected, (start, slope, label)
    # One class: nothing to be confused with.
    assert curve_of([[0.3]], [[1.0]], [0]).counts([-7.0, 7.0]).tolist() == [1, 1]


# ---------------------------------------------------------------------------------- the peak


def steps(*intervals: tuple[float, float], n: int = 9) -> StepCurve:
    low, high = (np.array([pair[at] for pair in intervals]) for at in (0, 1))
    shut = np.zeros(len(intervals), dtype=bool)
    return step_curve(Intervals(low, high, shut, shut, n))


def test_the_widest_plateau_wins_and_its_middle_is_named() -> None:
    # Two right on [0.1, 0.2] and on [0.5, 0.9]; one on what lies between.
    curve = steps((0.1, 0.9), (0.1, 0.2), (0.5, 2.0))
    peak = best_scale([curve], [9], 0.0, 1.0)
    assert (peak.low, peak.high, peak.counts, peak.at_edge) == (0.5, 0.9, (2,), False)
    assert peak.scale == pytest.approx(0.7)
    # The range cuts a plateau off, and says so.
    cut = best_scale([curve], [9], 0.0, 0.65)
    assert (cut.low, cut.high, cut.at_edge) == (0.5, 0.65, True)
    cut = best_scale([curve], [9], 0.0, 0.58)
    assert (cut.low, cut.high, cut.at_edge) == (0.1, 0.2, False)
    single = best_scale([curve], [9], 0.15, 0.15)
    assert (single.scale, single.counts) == (0.15, (2,))
    # Intervals that only touch: the best is one point.
    point = best_scale([steps((0.0, 0.5), (0.5, 1.0))], [9], -1.0, 2.0)
    assert (point.low, point.high, point.scale, point.counts) == (0.5, 0.5, 0.5, (2,))


def test_a_plateau_between_neighbouring_floats_is_no_plateau() -> None:
    low, high = 1.0, float(np.nextafter(1.0, 2.0))
    opened = np.array([True, False, False])
    curve = step_curve(
        Intervals(
            np.array([low, 3.0, -np.inf]),
            np.array([high, 4.0, np.inf]),
            opened,
            opened,
            3,
        )
    )
    peak = best_scale([curve], [3], 0.0, 9.0)
    assert (peak.low, peak.high, peak.counts) == (3.0, 4.0, (2,))


def test_equal_means_are_equal_fractions() -> None:
    # 5/6 on the first stretch, 1/2 + 2/6 on the second, wider one: as floats, the first is larger.
    one = steps((2.0, 3.5), n=2)
    two = steps(*[(0.0, 1.0)] * 5, *[(2.0, 3.5)] * 2, n=6)
    assert 5 / 6 > 1 / 2 + 2 / 6
    peak = best_scale([one, two], [2, 6], -1.0, 5.0)
    assert peak.counts == (1, 2)
    assert (peak.low, peak.high) == (2.0, 3.5)


@settings(max_examples=60)
@given(
    ends=st.lists(
        st.tuples(st.integers(-8, 8), st.integers(0, 6)).map(
            lambda e: (e[0] / 4, (e[0] + e[1]) / 4)
        ),
        min_size=2,
        max_size=8,
    ),
    over=st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
def test_no_lambda_is_better_than_the_peak(
    ends: list[tuple[float, float]], over: tuple[int, int]
) -> None:
    curves = [steps(*ends[::2]), steps(*ends[1::2])]

    def value(scale: float) -> Fraction:
        counts = [int(curve.counts([scale])[0]) for curve in curves]
        return sum((Fraction(c, o) for c, o in zip(counts, over, strict=True)), Fraction())

    peak = best_scale(curves, over, -1.0, 1.0)
    best = value(peak.scale)
    assert best == max(value(x) for x in np.arange(-1, 1.0625, 0.0625))
    assert peak.counts == tuple(int(curve.counts([peak.scale])[0]) for curve in curves)
    for scale in np.linspace(peak.low, peak.high, 9)[1:-1]:
        assert value(scale) == best
    for outside in (peak.low - 1 / 32, peak.high + 1 / 32):
        if -1 <= outside <= 1:
            assert value(outside) < best


def test_an_empty_choice_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to choose lambda from between 1"):
        best_scale([steps((0, 1))], [1], 1.0, 0.0)
    with pytest.raises(DataError, match="nothing to choose"):
        best_scale([], [], 0.0, 1.0)


# ------------------------------------------------------------------------- on tangent models


@pytest.fixture(scope="module")
def small() -> World:
    return world()


def test_a_tangent_models_curve_equals_brute_force_on_its_features(small: World) -> None:
    oracle = Oracle(small)
    random = np.random.default_rng(3)
    one = engine(small)
    for subset in (("a",), ("a", "c"), ("a", "b", "c")):
        line = one.line(subset, "b", "test")
        labels = line.labels.numpy()
        curve = curve_of(line.start.numpy(), line.slope.numpy(), labels)
        value = oracle.along("b", "test", "a")[0]
        slope = sum(oracle.along("b", "test", task)[1] for task in subset)
        head: Head = small.tasks["b"].head
        for scale in random.uniform(-3, 3, 200):
            features = value + scale * slope
            logits = (features / features.norm(dim=1, keepdim=True)) @ head.weight.double().T
            assert curve.counts([scale])[0] == int((logits.argmax(1).numpy() == labels).sum())
    # The rows of the grid lie on the curve.
    scales = [0.3, 1.0]
    rows = [int(scores.hits.sum()) for scores in line.scores(scales)]
    assert curve.counts(scales).tolist() == rows


def test_the_table_of_best_lambdas(small: World, tmp_path: Path) -> None:
    where = held(small).setting("tiny", "linear", 0, "fp32", "tangent")
    lambdas = ["-1.00", "0.00", "0.50", "1.00"]
    subsets = ["+".join(s) for k in (1, 2, 3) for s in itertools.combinations("abc", k)]
    plan = make_plan(where, method("task_arithmetic"), subsets, lambdas)
    store, one = OutcomeStore(tmp_path), engine(small, store=FeatureStore(tmp_path / "features"))
    line = cache(one.line)
    with pytest.raises(
        DataError, match="val outcome of the expert of task 'a' is not in the store"
    ):
        peaks_table(plan, one, store.find)
    run_reference(where, store, lambda: one)
    table = peaks_table(plan, one, store.find)
    assert table.schema == CONTINUOUS
    rows = table.to_pylist()
    assert len(rows) == 7 + 12
    experts = {
        (task, split): store.find([key])[key].correct
        for task in "abc"
        for split in ("val", "test")
        for key in [where.expert(task, task, split).key]  # type: ignore[arg-type]
    }
    for row in rows:
        tasks = [row["task"]] if row["task"] is not None else row["subset"].split("+")
        assert 0 <= row["low"] <= row["scale"] <= row["high"] <= 1
        assert row["at_edge"] == (row["low"] == 0 or row["high"] == 1)

        def means(scale: float, split: str, row: Any = row, tasks: Any = tasks) -> list[float]:
            shares, ratios = [], []
            for task in tasks:
                found = line(tuple(row["subset"].split("+")), task, split)  # type: ignore[arg-type]
                right = int(next(iter(found.scores([scale]))).hits.sum())
                shares.append(right / len(found.labels))
                ratios.append(right / experts[task, split])
            return [float(np.mean(shares)), float(np.mean(ratios))]

        found = [row["val_accuracy"], row["val_normalized"]]
        assert found == pytest.approx(means(row["scale"], "val"))
        assert [row["test_accuracy"], row["test_normalized"]] == pytest.approx(
            means(row["scale"], "test")
        )
        grid = [means(x, "val")[1] for x in torch.linspace(0, 1, 41).tolist()]
        assert max(grid) <= found[1] + 1e-12
    # Of one task, the best for all and the best for it alone are the same.
    one_task = [{**row, "task": None} for row in rows if row["size"] == 1]
    assert one_task[::2] == one_task[1::2]
    # Blocks come together in an order of their own, and other tables are refused.
    paths = [tmp_path / "late.parquet", tmp_path / "early.parquet"]
    for path, part in zip(paths, (table.slice(9), table.slice(0, 9)), strict=True):
        write_table(path, part)
    collected = collect_peaks(paths)
    assert collected == collect_peaks(paths[::-1])
    assert sorted(map(str, collected.to_pylist())) == sorted(map(str, rows))
    write_table(paths[0], table.drop_columns(["low"]))
    with pytest.raises(ArtifactError, match=r"late\.parquet has other columns"):
        collect_peaks(paths)
