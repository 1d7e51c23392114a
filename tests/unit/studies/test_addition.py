"""The choice of task addition: exact, the first maximum, at the edge or not."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import ConfigError, DataError
from taskgrid.studies import get_study
from taskgrid.studies.choosing import first_maximum
from taskgrid.studies.seam import Choice, Curves, Question

ADDITION = get_study("addition")


def choose(known: Curves) -> Choice:
    return ADDITION.choose(Question(known.subset, known.tasks), known)


def curves(
    correct: Sequence[Sequence[int]],
    expert: Sequence[int],
    n: Sequence[int] | None = None,
    points: Sequence[str] | None = None,
) -> Curves:
    tasks = tuple("abcdefgh"[: len(expert)])
    return Curves(
        subset=tasks,
        points=tuple(points or [f"{i / 10:.2f}" for i in range(len(correct))]),
        tasks=tasks,
        n=np.array(n or [100] * len(expert)),
        correct=np.array(correct).reshape(-1, len(expert)),
        expert=np.array(expert),
        zeroshot=np.zeros(len(expert), dtype=np.int64),
    )


def chosen(*args: Any, **options: Any) -> str:
    return choose(curves(*args, **options)).point


def test_the_mean_of_normalised_accuracy_decides_not_that_of_accuracy() -> None:
    # Accuracies 0.90 + 0.10 and 0.80 + 0.15: the second gains more relative to weak expert b.
    assert chosen([[90, 10], [80, 15]], expert=[90, 20]) == "0.10"
    assert chosen([[90, 10], [80, 15]], expert=[90, 90]) == "0.00"


def test_the_first_maximum_wins_a_tie() -> None:
    assert chosen([[50], [70], [70], [60], [70]], expert=[90]) == "0.10"
    assert chosen([[50, 50]] * 4, expert=[90, 80]) == "0.00"


def test_a_tie_is_a_tie_although_floats_differ() -> None:
    # 1/10 + 2/10 + 3/10 and its permutations: equal as fractions, not always as sums of floats.
    rows = [list(row) for row in itertools.permutations([1, 2, 3, 7, 9])]

    def added(row: list[int]) -> float:
        # One after the other: the built-in sum() of Python 3.12 compensates for what rounding loses.
        return functools.reduce(operator.add, (c / 10 for c in row))

    rows.sort(key=added)
    # As floats the last one would win.
    assert added(rows[0]) < added(rows[-1])
    assert chosen(rows, expert=[10] * 5) == "0.00"
    assert chosen([[0] * 5, *rows], expert=[10] * 5) == "0.10"


@given(
    data=st.data(),
    tasks=st.integers(1, 4),
    lambdas=st.integers(1, 8),
)
def test_the_choice_equals_brute_force(data: st.DataObject, tasks: int, lambdas: int) -> None:
    counts = st.integers(0, 12)
    expert = data.draw(st.lists(st.integers(1, 12), min_size=tasks, max_size=tasks))
    correct = data.draw(
        st.lists(
            st.lists(counts, min_size=tasks, max_size=tasks), min_size=lambdas, max_size=lambdas
        )
    )
    scores = [
        sum(Fraction(c, e) for c, e in zip(row, expert, strict=True)) / tasks for row in correct
    ]
    assert chosen(correct, expert=expert) == f"{scores.index(max(scores)) / 10:.2f}"


def test_a_task_whose_expert_gets_nothing_right_is_left_out() -> None:
    assert chosen([[0, 50], [99, 40]], expert=[0, 80]) == "0.00"
    assert chosen([[30, 10], [20, 30]], expert=[0, 0], n=[100, 100]) == "0.10"


def test_the_edge_of_the_sweep_is_reported() -> None:
    rows = [[10], [30], [20]]
    assert not choose(curves(rows, [50])).at_edge
    assert choose(curves(rows[1:], [50])).at_edge
    assert choose(curves(rows[:2], [50])).at_edge
    assert not choose(curves(rows[:1], [50])).at_edge


def test_negative_lambdas_are_not_chosen_unless_there_are_no_others() -> None:
    points = ["-0.50", "0.00", "0.50", "1.00"]
    best_negative = curves([[90], [10], [30], [20]], [50], points=points)
    assert choose(best_negative).point == "0.50"
    at_zero = curves([[90], [60], [30], [20]], [50], points=points)
    assert (choose(at_zero).point, choose(at_zero).at_edge) == ("0.00", True)
    only = curves([[10], [30]], [50], points=["-0.50", "-0.25"])
    assert choose(only).point == "-0.25"


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(DataError, match="no validation rows"):
        first_maximum([])


def test_studies_are_found_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'addition'"):
        get_study("aditions")
