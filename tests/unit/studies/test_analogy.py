"""Analogies: the choice against brute force and planted optima, the table against its outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from tests.unit.example_studies import Ran, correct, moved, ran

ABCD = ["a", "b", "c", "d"]
LAMBDAS = [0.5, 1, 2, 10]
FIELD = Field(trained=("a", "b", "c"), control=("d",))
SUBSETS = {("a", "b", "c")}


def study(*quadruples: list[str], **options: Any) -> Any:
    given = {"quadruples": [*quadruples] or [ABCD], "lambdas": LAMBDAS, **options}
    return get_study("analogy", given)


def point(x: str) -> str:
    return f"a:-{x},b:{x},c:{x}"


POINTS = ("0.00", *map(point, ("0.50", "1.00", "2.00", "10.00")))


def choose(correct: list[int]) -> Choice:
    (question,) = study().questions(("a", "b", "c"), FIELD)
    # Sorted as texts, 10.00 comes before 2.00.
    order = sorted(range(5), key=lambda at: POINTS[at])
    known = Curves(
        subset=("a", "b", "c"),
        points=tuple(POINTS[at] for at in order),
        tasks=("d",),
        n=np.array([100]),
        correct=np.array([[correct[at]] for at in order]),
        expert=np.array([0]),
        zeroshot=np.array(correct[:1]),
    )
    choice: Choice = study().choose(question, known)
    return choice


# --- the choice, points, questions -----------------------------------------------------------------


def test_the_first_maximum_in_the_order_of_x() -> None:
    assert choose([30, 40, 60, 60, 20]) == Choice(point("1.00"), at_edge=False, met=True)
    assert choose([30, 40, 50, 60, 60]) == Choice(point("2.00"), at_edge=False, met=True)
    assert choose([30, 40, 50, 60, 70]) == Choice(point("10.00"), at_edge=True, met=True)


def test_what_does_not_beat_the_base_is_not_met() -> None:
    assert choose([60, 40, 50, 60, 20]) == Choice(point("2.00"), at_edge=False, met=False)


@given(st.lists(st.integers(0, 9), min_size=5, max_size=5))
def test_the_choice_is_that_of_brute_force(correct: list[int]) -> None:
    choice = choose(correct)
    best = max(range(1, 5), key=lambda at: (correct[at], -at))
    assert (choice.point, choice.met) == (POINTS[best], correct[best] > correct[0])


def test_its_own_points_whatever_is_swept() -> None:
    (question,) = study().questions(("a", "b", "c"), FIELD)
    assert tuple(study().points(question, ("0.30", "0.70"), None)) == POINTS


def test_quadruples_of_one_subset_are_told_apart() -> None:
    one = study(ABCD, ["b", "a", "c", "d"], ["b", "a", "d", "c"])
    assert one.questions(("a", "b", "c"), FIELD) == (
        Question(("a", "b", "c"), ("d",), "a:b::c:d"),
        Question(("a", "b", "c"), ("d",), "b:a::c:d"),
    )
    assert one.questions(("a", "b"), FIELD) == ()
    first, second = (
        one.points(question, (), None)[1] for question in one.questions(("a", "b", "c"), FIELD)
    )
    assert (first, second) == ("a:-0.50,b:0.50,c:0.50", "a:0.50,b:-0.50,c:0.50")
    assert one.questions(("a", "b", "c"), Field(FIELD.trained, ("d",), scaled=False)) == ()


@pytest.mark.parametrize(
    ("quadruple", "words"),
    [
        (["a", "b", "d", "c"], "a:b::d:c adds the vector of 'd'; tasks with an expert: a, b, c"),
        (["a", "b", "c", "x"], "a:b::c:x is measured on 'x'; tasks: a, b, c, d"),
    ],
)
def test_what_cannot_be_asked_is_said(quadruple: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(quadruple).check(FIELD, SUBSETS)


def test_a_triple_that_is_not_on_the_grid_is_said() -> None:
    with pytest.raises(ConfigError, match=r"add \[a, b, c\] to grid.subsets.include"):
        study().check(FIELD, {("a", "b")})


@pytest.mark.parametrize("options", [{}, {"quadruples": []}, {"quadruples": [ABCD], "lambdas": []}])
def test_without_quadruples_there_is_nothing_to_ask(options: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="needs `quadruples`, lists of four tasks"):
        get_study("analogy", options)


@pytest.mark.parametrize("quadruple", [["a", "b", "c"], ["a", "b", "c", "a"]])
def test_a_quadruple_has_four_different_tasks(quadruple: list[str]) -> None:
    with pytest.raises(ConfigError, match="give four different tasks"):
        study(quadruple)


# --- on a law, from question to table --------------------------------------------------------------


def law(request: Request) -> float:
    """On d the square makes a parabola with its top at 0.6; on c the mirrored one is of no use."""
    weights = request.weights
    if weights.kind == "expert":
        return {"a": 0.55, "b": 0.62}.get(weights.subset[0], 0.58)
    x = weights.coefficients.named.get("b", 0.0)
    top = 0.6 if request.task == "d" else -0.6
    return 0.5 + 0.3 * (1 - (x / top - 1) ** 2)


OPTIONS = {"quadruples": [ABCD, ["a", "b", "d", "c"]], "lambdas": [0.2, 0.4, 0.5, 0.7, 1.0]}


@pytest.fixture(scope="module", params=[(), ("d",)])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    trained = tuple("abcd") if not request.param else tuple("abc")
    ours = setting(trained, val=1_000, test=5_000, control=request.param)
    subsets = ["a+b+c"] if request.param else ["a+b+c", "a+b+d"]
    folder = tmp_path_factory.mktemp("store")
    return ran(folder, law, ours, {"analogy": OPTIONS}, subsets)


def test_a_planted_optimum_is_found_and_told(planted: Ran) -> None:
    rows = planted.table("analogy", "quadruples", OPTIONS).to_pylist()
    # The parabola is equally high at 0.5 and at 0.7; the smaller x wins.
    first = rows[0]
    assert (first["a"], first["b"], first["c"], first["task"]) == tuple(ABCD)
    assert (first["point"], first["x"], first["met"]) == (point("0.50"), 0.5, True)
    gain = round(0.3 * (1 - (0.5 / 0.6 - 1) ** 2) * 5_000) / 5_000
    assert (first["n"], first["zeroshot"]) == (5_000, 0.5)
    assert first["accuracy"] == pytest.approx(0.5 + gain, abs=1e-9)
    assert first["gain"] == pytest.approx(gain, abs=1e-9)
    error = 1.96 * math.sqrt(gain * (1 - gain) / 5_000)
    assert first["gain"] - first["low"] == pytest.approx(error, rel=0.15)
    assert first["high"] - first["gain"] == pytest.approx(error, rel=0.15)
    assert first["flips"] == round(gain * 5_000)
    # On test, the best of the three experts is that of b; d's own is there if it has one.
    assert first["others"] == pytest.approx(0.62)
    assert first["expert"] == (0.58 if "d" in planted.grid["subset"].tolist() else None)
    for second in rows[1:]:
        assert (second["task"], second["x"], second["met"]) == ("c", 0.2, False)
        assert second["high"] < 0


# --- on weights ------------------------------------------------------------------------------------


def test_an_analogy_of_real_weights_is_that_of_brute_force(tmp_path: Path) -> None:
    small = world(("a", "b", "c", "d"), val=40)
    given = {"quadruples": [ABCD, ["b", "a", "c", "d"]], "lambdas": [0.25, 0.5, 1]}
    frame = evaluate_grid(
        small.base,
        small.card,
        small.tasks,
        experts={task: small.experts[task] for task in "abc"},
        subsets=["a+b+c"],
        studies={"analogy": given},
        store=tmp_path,
    )
    merges = frame[~frame["method"].isin(("zeroshot", "expert"))]
    assert set(merges["task"]) == {"d"} and merges["scale"].isna().sum() == len(merges) - 1
    states = {"0.00": moved(small, {})}
    for sign in (1, -1):
        for x in (0.25, 0.5, 1.0):
            name = f"a:{-sign * x:.2f},b:{sign * x:.2f},c:{x:.2f}"
            states[name] = moved(small, {"a": -sign * x, "b": sign * x, "c": x})
    found = {text: correct(state, small, "d", "val") for text, state in states.items()}
    val = merges[merges["split"] == "val"]
    assert dict(zip(val["point"], val["correct"], strict=True)) == found
    tested = merges[merges["split"] == "test"]
    best = {max(list(states)[start : start + 3], key=lambda text: found[text]) for start in (1, 4)}
    assert set(tested["point"]) == best
    for row in tested.itertuples():
        assert row.correct == correct(states[row.point], small, "d", "test")
