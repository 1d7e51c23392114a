"""Interpolated rows in the flow: keys, store, choices; against the grid that is measured throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from taskgrid.evaluation.curves.interpolated import Interpolated, SweptCurve, read_curve
from taskgrid.evaluation.curves.taking import Taker
from taskgrid.evaluation.curves.tracer import Tracer
from taskgrid.evaluation.curves.tracing import node_levels, trace
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.grid import evaluate_grid
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.planner import CurveRef, Plan, Sweep, make_plan
from taskgrid.evaluation.plan.runner import run_plan
from taskgrid.evaluation.plan.setting import Request
from taskgrid.evaluation.plan.work import Work
from taskgrid.lattice.nodes import CurveSpec
from taskgrid.lattice.points import format_lambda
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from tests.unit.example_grid import memory, world
from tests.unit.example_plans import FakeBench, fake_outcome, method, setting

# The experts of the tiny world lie far from its base: at lambda 1 nothing is smooth any more.
SWEEP = tuple(format_lambda(step / 100) for step in range(21))
SUBSETS = (("a",), ("a", "b"), ("a", "b", "c"))
LOOSE, STRICT = CurveSpec(5, 0.2), CurveSpec(7, 0.0)
ROW = ["method", "subset", "point", "task", "split"]


@dataclass
class Images:
    """A counter of images that passed."""

    passed: int = 0

    def __call__(self, label: str, total: int) -> AbstractContextManager[Images]:
        return nullcontext(self)

    def advance(self, count: int = 1) -> None:
        self.passed += count


def grid(curves: CurveSpec | None, counter: Images | None = None, **options: Any) -> pd.DataFrame:
    there = world(val=60, test=40)
    return evaluate_grid(
        there.base,
        there.card,
        there.tasks,
        experts=there.experts,
        subsets=SUBSETS,
        lambdas=SWEEP,
        curves=curves,
        progress=counter or Images(),
        **options,
    ).set_index(ROW)


@cache
def measured() -> pd.DataFrame:
    return grid(None, curves_on=("val", "test"))


@pytest.mark.parametrize("spec", [LOOSE, STRICT])
def test_rows_are_the_measured_ones_or_within_their_bounds(spec: CurveSpec) -> None:
    found, exact = grid(spec, curves_on=("val", "test")), measured()
    assert found.index.equals(exact.index)
    between = found[found["interpolated"]]
    assert len(between) > 50
    assert between["bound"].max() <= spec.tolerance
    off = (between["correct"] - exact["correct"][between.index]).abs()
    assert off.le((between["bound"] * between["n"]).round()).all()
    for score in ("nll", "ece"):
        assert (between[score] - exact[score][between.index]).abs().quantile(0.9) < 0.02
    # No interpolated row has the key of a measured one, and all are different.
    assert not set(between["key"]) & set(exact["key"])
    assert between["key"].is_unique
    rest = found[~found["interpolated"]]
    assert rest["bound"].isna().all()
    same = ["n", "correct", "accuracy", "normalized_accuracy", "nll", "ece", "key", "role"]
    pd.testing.assert_frame_equal(rest[same], exact.loc[rest.index][same])


@pytest.mark.parametrize("spec", [LOOSE, STRICT])
def test_the_choice_is_that_of_the_measured_grid_and_is_measured(spec: CurveSpec) -> None:
    found, exact = grid(spec), measured()
    chosen = found[found["role"] == "selected"]
    assert not chosen["interpolated"].any()
    assert set(chosen.index) == set(exact[exact["role"] == "selected"].index)
    for name, subset, scale, task, _ in chosen.index:
        assert not found.loc[(name, subset, scale, task, "val"), "interpolated"]


def test_interpolation_saves_passes() -> None:
    few, many = Images(), Images()
    grid(LOOSE, few)
    grid(None, many)
    assert few.passed < 0.6 * many.passed


def test_what_is_stored_is_found_again_and_what_is_lost_is_made_again(tmp_path: Path) -> None:
    first, again, later = Images(), Images(), Images()
    fresh = grid(LOOSE, first, store=tmp_path / "store")
    pd.testing.assert_frame_equal(grid(LOOSE, again, store=tmp_path / "store"), fresh)
    assert again.passed == 0
    # A store that lost some of its outcomes, as after a kill: the rows are the same again.
    whole = OutcomeStore(tmp_path / "store")
    known = whole.find(fresh["key"])
    half = OutcomeStore(tmp_path / "half")
    half.append([outcome for at, outcome in enumerate(known.values()) if at % 2])
    pd.testing.assert_frame_equal(grid(LOOSE, later, store=tmp_path / "half"), fresh)
    assert 0 < later.passed <= first.passed
    # Without interpolation the store gives the measured rows, and no other.
    exact = grid(None, store=tmp_path / "store")
    pd.testing.assert_frame_equal(exact, measured().loc[exact.index][exact.columns])


def test_tangent_models_need_no_interpolation() -> None:
    where = replace(setting(), tangent="tangent")
    assert (
        make_plan(where, method(), ["a"], SWEEP, curves=CurveRef(7, 0.01, code="x")).curves is None
    )


def test_a_listening_head_changes_no_bit() -> None:
    there = world(val=60, test=40)

    engine = Engine(memory(there), MergeRecipe.of("task_arithmetic", {}), batch_size=16)
    ask = asked(lambdas=SWEEP, n=60)
    outcomes = {outcome.key: outcome for outcome in Tracer(engine).trace(ask, lambda count: None)}
    exact = [ask.exact(scale) for scale in SWEEP]
    known = [request for request in exact if request.key in outcomes]
    assert len(known) >= 3
    for request, outcome in zip(known, engine.evaluate(known, lambda count: None), strict=True):
        assert outcomes[outcome.key] == outcome
        assert request.key in outcomes


def asked(
    lambdas: Sequence[str] = SWEEP, spec: CurveSpec = LOOSE, n: int = 40, code: str = "code"
) -> SweptCurve:
    plan = make_plan(
        setting(("a", "b"), val=n),
        method(),
        ["a+b"],
        lambdas,
        curves=CurveRef(spec.nodes, spec.tolerance, code=code),
    )
    return SweptCurve(plan, Sweep(("a", "b"), "a", "val", tuple(lambdas)))


def test_keys_depend_on_nodes_lambda_and_code_and_on_nothing_else() -> None:
    ask = asked()
    nodes = ("0.00", "0.10", "0.20")
    different = {
        ask.key("0.12", nodes),
        ask.key("0.13", nodes),
        ask.key("0.12", ("0.00", "0.09", "0.20")),
        asked(code="other").key("0.12", nodes),
        ask.exact("0.12").key,
        keys.certainty_key(ask.key("0.12", nodes)),
    }
    assert len(different) == 6
    # Tolerance, first nodes and the other lambdas say which rows there are, not what they are.
    other = asked(lambdas=SWEEP[:15], spec=CurveSpec(9, 0.3))
    assert other.key("0.12", nodes) == ask.key("0.12", nodes)


def test_a_plan_keeps_its_curves_and_an_older_one_has_none(tmp_path: Path) -> None:
    plan = asked().plan
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
    text = (tmp_path / "plan.json").read_text()
    without = make_plan(plan.setting, plan.method, plan.subsets, plan.lambdas)
    without.write(tmp_path / "old.json")
    old = read_json(tmp_path / "old.json")
    del old["curves"]
    write_json(tmp_path / "old.json", old)
    assert Plan.read(tmp_path / "old.json") == without
    assert "curves" in text


def test_bounds_count_what_can_be_lost_or_won() -> None:
    hits = np.array([1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    certain = np.array([1, 0, 0, 0, 1, 1, 1, 1], dtype=bool)
    row = Interpolated(Outcome.of("00", hits, 0.0, 0.0), Outcome.of("01", certain, 0.0, 0.0))
    assert (row.open_hits, row.open_misses, row.bound) == (2, 1, 2 / 8)


@dataclass
class WrongCurves:
    """Traces curves with interpolated rows that are wrong, but say so; stands for ``Tracer``."""

    open_images: int = 4
    traced: list[SweptCurve] = field(default_factory=list)

    def __call__(self, engine: Any) -> WrongCurves:
        return self

    def trace(self, ask: SweptCurve, advance: Callable[[int], None]) -> Iterator[Outcome]:
        self.traced.append(ask)
        found: list[Outcome] = []

        def between(nodes: tuple[str, ...], waiting: Sequence[str]) -> dict[str, Interpolated]:
            rows = {scale: self._between(ask, scale, nodes) for scale in waiting}
            found.extend(fake_outcome(ask.exact(node)) for node in nodes)
            for row in rows.values():
                found.extend([row.outcome, row.certainty])
            return rows

        for scale in trace(ask.sweep.points, ask.spec, between).exact:
            found.append(fake_outcome(ask.exact(scale)))
        yield from {outcome.key: outcome for outcome in found}.values()

    def _between(self, ask: SweptCurve, scale: str, nodes: tuple[str, ...]) -> Interpolated:
        # Some hits are taken for misses, and marked as open.
        exact = fake_outcome(ask.exact(scale))
        hits, certain = exact.hits(), np.ones(exact.n, dtype=bool)
        wrong = np.flatnonzero(hits)[: self.open_images]
        hits[wrong] = certain[wrong] = False
        key = ask.key(scale, nodes)
        return Interpolated(
            Outcome.of(key, hits, 0.0, 0.0),
            Outcome.of(keys.certainty_key(key), certain, 0.0, 0.0),
        )


@pytest.mark.parametrize("open_images", [0, 1, 4, 12])
def test_a_wrong_curve_that_says_so_leads_to_the_right_choice(
    tmp_path: Path, open_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(
        setting(), method(), ["a", "a+b", "a+b+c"], SWEEP, curves=CurveRef(5, 0.4, code="code")
    )
    curves, bench, plain = WrongCurves(open_images), FakeBench(), FakeBench()
    monkeypatch.setattr("taskgrid.evaluation.curves.taking.Tracer", curves)
    store = OutcomeStore(tmp_path / "curves")
    found = run_plan(plan, store, bench.open, take=Taker(plan))
    exact = run_plan(replace(plan, curves=None), OutcomeStore(tmp_path / "plain"), plain.open)
    chosen = [
        {
            (row["subset"], row["point"], row["task"]): row["correct"]
            for row in result.table.to_pylist()
            if row["role"] == "selected"
        }
        for result in (found, exact)
    ]
    assert chosen[0] == chosen[1]
    assert found.choices == exact.choices
    assert len(curves.traced) == 1 + 2 + 3
    assert found.estimated == sum(row["interpolated"] for row in found.table.to_pylist()) > 20
    assert f"interpolated {found.estimated}" in found.sentence()
    # And a second run measures nothing.
    again = run_plan(plan, store, bench.open, take=Taker(plan))
    assert again.table == found.table
    assert (again.evaluated, again.images) == (0, 0)


def test_a_curve_lacking_any_outcome_is_not_read() -> None:
    ask = asked()
    outcomes = {outcome.key: outcome for outcome in WrongCurves().trace(ask, lambda count: None)}
    traced = read_curve(ask, outcomes)
    assert traced is not None
    needed = {ask.exact(scale).key for scale in traced.exact}
    for row in traced.interpolated.values():
        needed |= {row.outcome.key, row.certainty.key}
    assert needed <= set(ask.row_keys())
    for key in needed:
        assert read_curve(ask, {k: v for k, v in outcomes.items() if k != key}) is None


def left_of(*points: str) -> tuple[str, ...]:
    """Return the points of a sweep that are not taken as a curve, from a store that knows it all."""
    plan, sweep = asked().plan, Sweep(("a", "b"), "a", "val", points)
    curve = SweptCurve(plan, Sweep(("a", "b"), "a", "val", SWEEP))
    known = {outcome.key: outcome for outcome in WrongCurves().trace(curve, lambda count: None)}
    work = Work(Known(known), lambda: pytest.fail("nothing is missing"))
    return tuple(point for left in Taker(plan)(work, [sweep]) for point in left.points)


@dataclass
class Known:
    """A store that knows some outcomes and takes none."""

    outcomes: dict[str, Outcome]

    def find(self, wanted: Iterable[str]) -> dict[str, Outcome]:
        return {key: self.outcomes[key] for key in wanted if key in self.outcomes}

    def writer(self) -> Any:
        pytest.fail("nothing is measured")


def test_a_sweep_too_short_for_nodes_is_measured_as_it_is() -> None:
    assert left_of(*SWEEP) == ()
    assert left_of(*SWEEP[:5]) == SWEEP[:5]
    assert left_of("0.30") == ("0.30",)
    # Points with coefficients of their own lie on no curve.
    assert left_of(*SWEEP, "a:0.10,b:0.20") == ("a:0.10,b:0.20",)
    requests: list[Request] = list(asked().requests())
    nodes = {node for level in node_levels(SWEEP, 5) for node in level}
    assert {request.weights.point for request in requests} == nodes | {*SWEEP}
