"""Negation: the choice against brute force and planted optima, the table against its outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import ConfigError
from taskgrid.evaluation import evaluate_grid
from taskgrid.evaluation.plan.setting import Request
from taskgrid.studies import get_study
from taskgrid.studies.seam import Choice, Curves, Field, Question
from tests.unit.example_grid import world
from tests.unit.example_plans import setting
from tests.unit.example_studies import Ran, correct, moved, predictions, ran

LAMBDAS = [-0.1, -0.2, -0.3, -0.4, -0.5]
TEXTS = ("0.00", "-0.10", "-0.20", "-0.30", "-0.40", "-0.50")
FIELD = Field(trained=("a", "b"), control=("k",))


def study(**options: Any) -> Any:
    return get_study("negation", {"lambdas": LAMBDAS, **options})


def curves(target: list[int], *control: list[int], points: tuple[str, ...] = TEXTS) -> Curves:
    """Curves of target `a` and controls `k`, `l`, ...; the first value of each is zero-shot."""
    counts = np.array([target, *control]).T
    tasks = ("a", *"kl"[: len(control)])
    return Curves(
        subset=("a",),
        points=points,
        tasks=tasks,
        n=np.full(len(tasks), 100),
        correct=counts,
        expert=np.array([90, *[0] * len(control)]),
        zeroshot=counts[0],
    )


def choose(known: Curves, **options: Any) -> Choice:
    choice: Choice = study(**options).choose(Question(known.subset, known.tasks), known)
    return choice


# --- the choice ------------------------------------------------------------------------------------


def test_the_lowest_target_among_the_points_that_keep_the_control() -> None:
    known = curves([60, 50, 40, 30, 20, 10], [80, 80, 78, 76, 75, 20])
    # 76 of 80 are 95 %, exactly; 75 are not.
    assert choose(known) == Choice("-0.30", at_edge=False, met=True)
    assert choose(known, keep=0.9375) == Choice("-0.40", at_edge=False, met=True)
    assert choose(known, keep=0.25) == Choice("-0.50", at_edge=True, met=True)


def test_the_weakest_of_equal_ones() -> None:
    assert choose(curves([60, 50, 9, 9, 9, 20], [80] * 6)).point == "-0.20"


def test_every_control_task_is_kept_and_not_their_mean() -> None:
    known = curves([60, 50, 40, 30, 20, 10], [80] * 6, [40, 39, 38, 37, 40, 40])
    assert choose(known).point == "-0.50"
    assert choose(curves([60, 50, 40, 30, 20, 10], [99] * 6, [40, 39, 38, 37, 36, 35])).point == (
        "-0.20"
    )


def test_a_control_that_knows_nothing_has_nothing_to_lose() -> None:
    assert choose(curves([60, 50, 40, 30, 20, 10], [0] * 6)).point == "-0.50"


def test_never_satisfiable_is_a_result() -> None:
    known = curves([60, 50, 40, 30, 20, 10], [80, 70, 71, 60, 50, 40])
    assert choose(known) == Choice("-0.20", at_edge=False, met=False)
    known = curves([60, 50, 40, 30, 20, 10], [80, 70, 70, 60, 50, 40])
    assert choose(known) == Choice("-0.10", at_edge=True, met=False)


def test_zero_negates_nothing_and_is_not_chosen() -> None:
    known = curves([60, 70, 80, 90, 90, 90], [80] * 6)
    assert choose(known).point == "-0.10"


counts = st.lists(st.integers(0, 20), min_size=6, max_size=6)


@given(target=counts, control=counts, other=counts, keep=st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_the_choice_is_that_of_brute_force(
    target: list[int], control: list[int], other: list[int], keep: float
) -> None:
    choice = choose(curves(target, control, other), keep=keep)
    share = Fraction(str(keep))
    able = [
        at
        for at in range(1, 6)
        if control[at] >= share * control[0] and other[at] >= share * other[0]
    ]
    assert choice.met == bool(able)
    if able:
        assert TEXTS.index(choice.point) == min(able, key=lambda at: (target[at], at))


# --- points ----------------------------------------------------------------------------------------


def asked_until_content(law: Any, **options: Any) -> list[str]:
    """Ask again and again, as a run does; return the points in the order they came."""
    one, question = study(**options), Question(("a",), ("a", "k"))
    points = list(one.points(question, ("0.30",), None))
    while True:
        control = [law(float(point)) for point in points]
        known = curves([50] * len(points), control, points=tuple(points))
        more = [point for point in one.points(question, ("0.30",), known) if point not in points]
        if not more:
            return points
        points += more


def test_its_own_lambdas_and_zero_whatever_is_swept() -> None:
    assert asked_until_content(lambda scale: 80) == list(TEXTS)
    assert asked_until_content(lambda scale: 80 if scale > -0.15 else 0) == list(TEXTS)


@pytest.mark.parametrize("limit", [0.03, 0.1234567, 0.31, 0.4999])
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_refining_halves_the_interval_in_which_the_control_gives_way(
    limit: float, steps: int
) -> None:
    points = asked_until_content(lambda s: 100 if -s <= limit else 0, refine=steps)
    assert len(points) == 6 + steps
    scales = sorted(-float(point) for point in points)
    last = max(scale for scale in scales if scale <= limit)
    first = min(scale for scale in scales if scale > limit)
    assert first - last == pytest.approx(0.1 / 2**steps, abs=2e-6)


def test_refining_ends_where_decimals_do() -> None:
    points = asked_until_content(lambda s: 100 if -s <= 0.123456 else 0, refine=20)
    assert len(points) < 6 + 20 and "-0.123456" in points and "-0.123457" in points


def test_nothing_to_refine_where_the_control_is_always_kept() -> None:
    assert asked_until_content(lambda scale: 80, refine=5) == list(TEXTS)


# --- questions and refusals ------------------------------------------------------------------------


def test_every_task_alone_beside_the_control() -> None:
    one = study()
    assert one.questions(("a",), FIELD) == (Question(("a",), ("a", "k")),)
    assert one.questions(("a", "b"), FIELD) == ()
    assert one.questions(("a",), Field(("a",), ("k",), scaled=False)) == ()
    named = study(control=["b"])
    assert named.questions(("a",), FIELD) == (Question(("a",), ("a", "b")),)
    assert named.questions(("b",), FIELD) == ()
    assert study(targets=["b"]).questions(("a",), FIELD) == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"control": ["x"]}, "has the control task 'x'; tasks: a, b, k"),
        ({"targets": ["k"]}, "has 'k' as a target and as control"),
        ({"targets": ["x"]}, "has the target 'x'; tasks with an expert: a, b"),
        ({"targets": ["b"]}, r"add \[b\] to grid.subsets.include"),
    ],
)
def test_what_cannot_be_asked_is_said(options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(**options).check(FIELD, {("a",), ("a", "b")})


def test_an_experiment_without_a_control_is_told_to_add_one() -> None:
    small = world(("a", "b"))
    with pytest.raises(ConfigError, match=r"needs a control.*\{name: catalogue, expert: false\}"):
        evaluate_grid(
            small.base, small.card, small.tasks, experts=small.experts, studies=["negation"]
        )
    with pytest.raises(ConfigError, match="'lambdas' of study 'negation' is empty"):
        study(lambdas=[])
    with pytest.raises(ConfigError, match="it must be less than 0"):
        study(lambdas=[-0.1, 0.2])


# --- on a law, from question to table --------------------------------------------------------------

STRENGTH = {"a": 0.4, "b": 2.0}


def law(request: Request) -> float:
    """The control loses with the square of lambda, target a faster than b; a planted optimum."""
    weights = request.weights
    if weights.kind == "expert":
        return 0.9
    scale = 0.0 if weights.kind == "base" else float(weights.point)
    if request.task == "k":
        return 0.6 * (1 - STRENGTH[weights.subset[0]] * scale**2) if weights.subset else 0.6
    return 0.7 + 0.6 * scale if request.task in weights.subset else 0.7


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    ours = setting(("a", "b"), val=10_000, test=5_000, control=("k",))
    options = {"negation": {"refine": 8}}
    return ran(tmp_path_factory.mktemp("store"), law, ours, options, ["a", "b", "a+b"])


def test_a_planted_optimum_is_found(planted: Ran) -> None:
    for chosen in planted.of("negation"):
        best = -math.sqrt(0.05 / STRENGTH[chosen.subset])
        assert chosen.met and not chosen.at_edge
        # A whole image of 10,000 more or less moves the optimum by less than this.
        assert best - 1e-3 <= float(chosen.point) <= best + 0.05 / 2**8 + 1e-3
        assert chosen.tasks == (chosen.subset, "k")
    assert [chosen.subset for chosen in planted.of("negation")] == ["a", "b"]


def test_the_table_says_what_was_lost_and_what_was_kept(planted: Ran) -> None:
    rows = planted.table("negation", "targets", {"refine": 8}).to_pylist()
    assert [row["task"] for row in rows] == ["a", "b"]
    for row in rows:
        scale = row["scale"]
        assert row["zeroshot"] == 0.7
        assert row["accuracy"] == pytest.approx(0.7 + 0.6 * scale, abs=1e-4)
        assert row["drop"] == pytest.approx(-0.6 * scale, abs=1e-4)
        # Of nested outcomes the drop is a proportion: its error is that of a binomial.
        error = math.sqrt(row["drop"] * (1 - row["drop"]) / 5_000)
        assert row["drop"] - row["low"] == pytest.approx(1.96 * error, rel=0.15)
        assert row["high"] - row["drop"] == pytest.approx(1.96 * error, rel=0.15)
        assert row["flips"] == round(row["drop"] * 5_000)
        kept = 1 - STRENGTH[row["task"]] * scale**2
        assert row["keep"] == 0.95 and row["control"] == "k"
        assert row["control_kept"] == pytest.approx(kept, abs=1e-3)
        assert row["control_accuracy"] == pytest.approx(0.6 * kept, abs=1e-3)
        assert row["control_flips"] == round(5_000 * (0.6 - row["control_accuracy"]))
        assert (row["n"], row["control_n"], row["control_zeroshot"]) == (5_000, 5_000, 0.6)


# --- on weights ------------------------------------------------------------------------------------


def test_negation_of_real_weights_is_that_of_brute_force(tmp_path: Path) -> None:
    small = world(val=40)
    experts = {task: small.experts[task] for task in ("a", "b")}
    frame = evaluate_grid(
        small.base,
        small.card,
        small.tasks,
        experts=experts,
        studies={"negation": {"lambdas": LAMBDAS, "keep": 0.7}},
        store=tmp_path,
    )
    merges = frame[~frame["method"].isin(("zeroshot", "expert"))]
    assert set(merges["subset"]) == {"a", "b"}
    for target in ("a", "b"):
        states = {text: moved(small, {target: float(text)}) for text in TEXTS}
        found = {
            (text, task): correct(state, small, task, "val")
            for text, state in states.items()
            for task in (target, "c")
        }
        rows = merges[(merges["subset"] == target) & (merges["split"] == "val")]
        measured = {(row.point, row.task): row.correct for row in rows.itertuples()}
        assert measured == found
        able = [t for t in TEXTS[1:] if found[t, "c"] >= Fraction("0.7") * found["0.00", "c"]]
        best = min(able, key=lambda text: (found[text, target], TEXTS.index(text)))
        tested = merges[(merges["subset"] == target) & (merges["split"] == "test")]
        assert set(tested["point"]) == {best} and set(tested["role"]) == {"selected"}
        for row in tested.itertuples():
            assert row.correct == correct(states[best], small, row.task, "test")
            assert len(predictions(states[best], small, row.task, "test")) == row.n
