"""Barriers: where they are looked for, how high they are, and their intervals, by hand and on weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import ArtifactError, ConfigError, DataError
from taskgrid.evaluation import evaluate_grid
from taskgrid.evaluation.plan.setting import Request
from taskgrid.store.outcome import Outcome
from taskgrid.studies import get_study
from taskgrid.studies.seam import Choice, Curves, Field, Question, Results
from taskgrid.studies.tables import study_table
from tests.unit.example_grid import world
from tests.unit.example_plans import setting
from tests.unit.example_studies import correct, moved, ran

FIELD = Field(trained=("a", "b", "c"))
INNER = [0.25, 0.5, 0.75]
LINE = ("a:1.00,b:0.00", "a:0.75,b:0.25", "0.50", "a:0.25,b:0.75", "a:0.00,b:1.00")
CURVE = ("0.00", "0.25", "0.50", "0.75", "1.00")
TS = (0, 0.25, 0.5, 0.75, 1)


def study(**options: Any) -> Any:
    return get_study("barriers", {"t": INNER, **options})


def choose(a: Sequence[int], b: Sequence[int], n: Sequence[int] = (100, 50)) -> Choice:
    known = Curves(
        subset=("a", "b"),
        points=LINE,
        tasks=("a", "b"),
        n=np.array(n),
        correct=np.array([a, b]).T,
        expert=np.array([a[0], b[-1]]),
        zeroshot=np.array([5, 5]),
    )
    choice: Choice = study().choose(Question(("a", "b"), ("a", "b"), "line"), known)
    return choice


# --- points and choice -----------------------------------------------------------------------------


def test_the_line_is_points_of_both_tasks_and_the_curve_is_points_of_lambda() -> None:
    (line,) = study().questions(("a", "b"), FIELD)
    assert line == Question(("a", "b"), ("a", "b"), "line")
    assert tuple(study().points(line, ("0.30",), None)) == LINE
    (curve,) = study().questions(("a", "b"), Field(FIELD.trained, scaled=False, method="bezier"))
    assert (curve.about, tuple(study().points(curve, ("0.30",), None))) == ("curve", CURVE)
    eleven = get_study("barriers", {})
    assert [*eleven.points(curve, (), None)] == [f"{t / 10:.2f}" for t in range(11)]
    assert eleven.points(line, (), None)[3] == "a:0.70,b:0.30"


def test_pairs_alone_of_methods_that_have_a_path() -> None:
    for subset in (("a",), ("a", "b", "c"), ()):
        assert study().questions(subset, FIELD) == ()
    for method in ("ties", "average", "lines"):
        assert study().questions(("a", "b"), Field(FIELD.trained, method=method)) == ()
    assert study().questions(("a", "b"), Field(FIELD.trained, method="task_arithmetic"))
    named = study(pairs=[["c", "a"]])
    assert named.questions(("a", "b"), FIELD) == () and named.questions(("a", "c"), FIELD)


def test_the_inner_point_with_the_most_errors_above_the_line() -> None:
    # The means are 0.5 at both ends; on the second task an image counts twice.
    assert choose([90, 50, 60, 70, 10], [5, 30, 20, 20, 45]) == Choice("0.50", at_edge=False)
    assert choose([90, 50, 60, 70, 10], [5, 30, 25, 10, 45]).point == "a:0.25,b:0.75"
    # Of equal ones the first; a path that is better throughout has a place as well.
    assert choose([50] * 5, [25] * 5).point == "a:0.75,b:0.25"
    assert choose([10, 80, 70, 90, 10], [5, 40, 40, 40, 5]).point == "0.50"


counts = st.lists(st.integers(0, 50), min_size=5, max_size=5)


@given(a=counts, b=counts)
def test_the_choice_is_that_of_brute_force(a: list[int], b: list[int]) -> None:
    def above(at: int) -> Fraction:
        share = Fraction(at, 4)
        parts = [(1 - share) * row[0] + share * row[4] - row[at] for row in (a, b)]
        return Fraction(parts[0]) / 60 + Fraction(parts[1]) / 50

    found = LINE.index(choose(a, b, (60, 50)).point)
    assert found == max((1, 2, 3), key=lambda at: (above(at), -at))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs": [["a", "x"]]}, "has pairs with 'x'; tasks with an expert: a, b, c"),
        (
            {"pairs": [["c", "b"]]},
            r"joins b and c, which are not merged alone; add \[b, c\] to grid",
        ),
    ],
)
def test_what_cannot_be_asked_is_said(options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(**options).check(FIELD, {("a",), ("a", "b"), ("a", "b", "c")})


def test_a_grid_without_pairs_is_told_to_have_some() -> None:
    with pytest.raises(ConfigError, match=r"no two are merged alone; write grid.subsets: \{sizes"):
        study().check(FIELD, {("a",), ("a", "b", "c")})
    study().check(FIELD, {("b", "c")})
    with pytest.raises(ConfigError, match="'t' of study 'barriers' is empty"):
        study(t=[])
    with pytest.raises(ConfigError, match="it must be less than 1"):
        study(t=[0.5, 1])
    for pair in (["a"], ["a", "a"], ["a", "b", "c"]):
        with pytest.raises(ConfigError, match="give two different tasks"):
            study(pairs=[pair])


# --- a grid by hand --------------------------------------------------------------------------------

RUN = {"model": "m", "mode": "theirs", "seed": 1}
IMAGES = {"a": 400, "b": 90}


class Hand:
    """Random outcomes of two experts and of what lies between them, on both tasks and splits."""

    def __init__(self, method: str, *, same: bool = False) -> None:
        self.method, self.points = method, CURVE if method == "bezier" else LINE
        self.hits: dict[tuple[str, str, str], np.ndarray] = {}
        self.outcomes: dict[str, Outcome] = {}
        random, rows = np.random.default_rng(3), list[dict[str, Any]]()
        for split in ("val", "test"):
            for task, count in IMAGES.items():
                easy = random.random(count)
                for name, method_, subset, point in self._models():
                    share = 0.7 if same else {"a": 0.8, "b": 0.4}.get(subset, 0.3)
                    noise = 0 if same else random.normal(scale=0.2, size=count)
                    hits = easy + noise < share
                    nll = 0.7 if same else float(random.random())
                    key = f"{len(rows):032x}"
                    self.hits[name, task, split] = hits
                    self.outcomes[key] = Outcome.of(key, hits, nll, 0.1)
                    rows.append(
                        {**RUN, "method": method_, "options": "{}", "subset": subset}
                        | {"point": point, "task": task, "split": split, "key": key, "nll": nll}
                    )
        rows.append({**rows[0], "mode": None, "seed": None, "method": "zeroshot", "subset": ""})
        self.grid = pd.DataFrame(rows).astype({"seed": "Int64"})
        chosen = {**RUN, "method": method, "options": "{}", "subset": "a+b", "study": "barriers"}
        chosen |= {"about": "curve" if method == "bezier" else "line", "point": self.points[3]}
        self.selected = pd.DataFrame([chosen, {**chosen, "study": "addition", "point": "1.00"}])

    def _models(self) -> Iterator[tuple[str, str, str, str]]:
        for task in IMAGES:
            yield task, "expert", task, "1.00"
        for point in self.points:
            yield point, self.method, "a+b", point

    def rows(self, table: str) -> list[dict[str, Any]]:
        results = Results(
            "barriers",
            self.grid,
            self.selected,
            lambda keys: {key: self.outcomes[key] for key in keys if key in self.outcomes},
            ("a", "b"),
        )
        made = study_table("barriers", {"t": INNER}, table, results).to_pylist()
        assert made == study_table("barriers", {"t": INNER}, table, results).to_pylist()
        return made

    def worth(self, at: int, split: str) -> list[np.ndarray]:
        """For each task the errors above the line, image by image."""
        return [
            (1 - TS[at]) * self.hits["a", task, split]
            + TS[at] * self.hits["b", task, split]
            - self.hits[self.points[at], task, split]
            for task in IMAGES
        ]

    def nll(self, at: int, split: str) -> float:
        """The mean loss above the line."""
        rows = self.grid[(self.grid["split"] == split) & (self.grid["method"] != "zeroshot")]
        means = rows.groupby(["method", "subset", "point"])["nll"].mean()
        ends = [means["expert", task, "1.00"] for task in IMAGES]
        own = means[self.method, "a+b", self.points[at]]
        return float(own - (1 - TS[at]) * ends[0] - TS[at] * ends[1])


BOTH = pytest.mark.parametrize("method", ["task_arithmetic", "bezier"])


@BOTH
def test_a_path_is_the_errors_and_the_loss_above_the_line(method: str) -> None:
    hand = Hand(method)
    rows = hand.rows("paths")
    assert [row["point"] for row in rows] == list(hand.points)
    assert [row["t"] for row in rows] == list(TS)
    for at, row in enumerate(rows):
        assert (row["mode"], row["seed"], row["method"]) == ("theirs", 1, method)
        assert (row["subset"], row["n"], row["level"]) == ("a+b", 490, 0.95)
        assert row["path"] == ("curve" if method == "bezier" else "line")
        own = [hand.hits[hand.points[at], task, "val"].mean() for task in IMAGES]
        assert row["accuracy"] == pytest.approx(np.mean(own), abs=1e-12)
        means = [one.mean() for one in hand.worth(at, "val")]
        assert row["excess"] == pytest.approx(np.mean(means), abs=1e-12)
        assert row["loss_excess"] == pytest.approx(hand.nll(at, "val"), abs=1e-12)


@BOTH
def test_a_barrier_is_measured_on_test_where_validation_looked_for_it(method: str) -> None:
    hand = Hand(method)
    (row,) = hand.rows("pairs")
    assert (row["point"], row["t"], row["n"]) == (hand.points[3], 0.75, 490)
    for end, task in (("first", "a"), ("second", "b")):
        own = [hand.hits[task, other, "test"].mean() for other in IMAGES]
        assert row[end] == pytest.approx(np.mean(own), abs=1e-12)
    assert row["barrier"] == pytest.approx(
        0.25 * row["first"] + 0.75 * row["second"] - row["accuracy"], abs=1e-12
    )
    worth = hand.worth(3, "test")
    assert row["barrier"] == pytest.approx(np.mean([one.mean() for one in worth]), abs=1e-12)
    # The standard error of a mean of two means.
    error = math.sqrt(sum(one.var() / len(one) for one in worth)) / 2
    assert row["barrier"] - row["low"] == pytest.approx(1.96 * error, rel=0.1)
    assert row["high"] - row["barrier"] == pytest.approx(1.96 * error, rel=0.1)
    assert row["val_barrier"] == hand.rows("paths")[3]["excess"]
    losses = {TS[at]: hand.nll(at, "val") for at in (1, 2, 3)}
    assert row["loss_barrier"] == pytest.approx(max(losses.values()), abs=1e-12)
    assert losses[row["loss_t"]] == max(losses.values())


@BOTH
def test_between_a_model_and_itself_there_is_no_barrier(method: str) -> None:
    hand = Hand(method, same=True)
    for row in hand.rows("paths"):
        assert row["excess"] == 0 and row["loss_excess"] == pytest.approx(0, abs=1e-15)
        assert row["low"] == row["high"] == 0
    (row,) = hand.rows("pairs")
    assert row["barrier"] == 0 and row["first"] == row["second"] == row["accuracy"]


def test_a_row_or_an_outcome_that_is_missing_is_named() -> None:
    hand = Hand("task_arithmetic")
    hand.outcomes.pop(next(iter(hand.outcomes)))
    with pytest.raises(ArtifactError, match=r"outcomes of a\+b at a:1.00,b:0.00 are not in the st"):
        hand.rows("paths")
    hand = Hand("task_arithmetic")
    hand.grid = hand.grid[hand.grid["split"] != "test"]
    with pytest.raises(
        DataError, match=r"no row of m, theirs, 1, expert, .*, a, 1.00, a, test; run"
    ):
        hand.rows("pairs")


# --- on a law, and on weights ----------------------------------------------------------------------


def law(request: Request) -> float:
    """Each expert is good at its own task; between them lies a hill whose top is at t = 2/3."""
    weights = request.weights
    if weights.kind == "base":
        return 0.4
    own = weights.kind == "expert"
    t = float(weights.subset == ("b",)) if own else weights.coefficients.of("b")
    ends = (0.9, 0.5) if request.task == "a" else (0.6, 0.8)
    return (1 - t) * ends[0] + t * ends[1] - 0.2 * 6.75 * t**2 * (1 - t)


def test_a_planted_hill_is_found_and_measured(tmp_path: Path) -> None:
    ours = setting(("a", "b"), val=10_000, test=5_000)
    planted = ran(tmp_path, law, ours, {"barriers": {}}, ["a", "b", "a+b"])
    (chosen,) = planted.of("barriers")
    assert (chosen.point, chosen.tasks, chosen.about) == ("a:0.30,b:0.70", ("a", "b"), "line")
    height = 0.2 * 6.75 * 0.49 * 0.3
    (row,) = planted.table("barriers", "pairs", {}).to_pylist()
    assert row["barrier"] == pytest.approx(height, abs=2e-4)
    assert row["low"] < height < row["high"] and row["high"] - row["low"] < 0.03
    paths = planted.table("barriers", "paths", {}).to_pylist()
    assert [row["t"] for row in paths] == [t / 10 for t in range(11)]
    for row in paths:
        hill = 0.2 * 6.75 * row["t"] ** 2 * (1 - row["t"])
        assert row["excess"] == pytest.approx(hill, abs=2e-4)
    # Both ends are the experts, though they are measured as points.
    assert paths[0]["excess"] == paths[-1]["excess"] == 0


def test_the_line_between_real_weights_is_that_of_brute_force(tmp_path: Path) -> None:
    small = world(("a", "b"), val=40)
    frame = evaluate_grid(
        small.base,
        small.card,
        small.tasks,
        experts=small.experts,
        studies={"barriers": {"t": INNER}},
        store=tmp_path,
    )
    merges = frame[~frame["method"].isin(("zeroshot", "expert"))]
    assert set(merges["subset"]) == {"a+b"}
    states = {point: moved(small, {"a": 1 - t, "b": t}) for point, t in zip(LINE, TS, strict=True)}
    val = merges[merges["split"] == "val"]
    measured = {(row.point, row.task): row.correct for row in val.itertuples()}
    assert measured == {
        (point, task): correct(state, small, task, "val")
        for point, state in states.items()
        for task in ("a", "b")
    }
    # The ends of the path are the experts, on both tasks.
    experts = frame[(frame["method"] == "expert") & (frame["split"] == "val")]
    for row in experts.itertuples():
        end = LINE[0] if row.subset == "a" else LINE[-1]
        assert row.correct == measured[end, row.task]
    tested = merges[merges["split"] == "test"]
    picked = choose(
        [measured[point, "a"] for point in LINE], [measured[point, "b"] for point in LINE], (40, 40)
    )
    assert set(tested["point"]) == {picked.point} and set(tested["role"]) == {"selected"}
