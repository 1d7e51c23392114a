"""What decides within a box of coefficients, against an argmax over all classes at points of the box."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.evaluation.tangent.margins import deciding, margins_table
from tests.unit.example_margins import Affine, Images, affine

LOW, HIGH = 0.0, 1.0


def right_by(table: pd.DataFrame, point: np.ndarray) -> pd.Series:
    """Answer a point from the table alone, as its columns say."""
    slopes = table[[name for name in table if name.startswith("by ")]].to_numpy()
    margin = table["start"].to_numpy() + slopes @ point
    wins = (margin > 0) | ((margin == 0) & (table["ties"] == True))  # noqa: E712
    known = table["right"].map(lambda right: bool(right) if pd.notna(right) else None)
    return known.where(known.notna(), wins).astype(bool).groupby(table["image"]).all()


def table_of(world: Affine, low: float = LOW, high: float = HIGH) -> pd.DataFrame:
    return margins_table(world, world.tasks, world.tasks, low, high).to_pandas()


@pytest.mark.parametrize("reach", [0.05, 1.0])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 2.0)])
def test_every_image_is_answered_everywhere_in_the_box(
    reach: float, low: float, high: float
) -> None:
    world = affine(tasks=4, reach=reach)
    table = table_of(world, low, high)
    generator = np.random.default_rng(1)
    corners = np.array([[low] * 4, [high] * 4, [low, high, low, high], [0.0] * 4])
    for point in [*corners, *generator.uniform(low, high, (40, 4))]:
        for task, rows in table.groupby("task"):
            own = world.images[task]
            assert (right_by(rows, point).to_numpy() == own.right(point)).all(), (task, point)


@given(st.integers(0, 2**32 - 1))
def test_ties_go_to_the_first_class(seed: int) -> None:
    # Whole numbers tie all the time.
    generator = np.random.default_rng(seed)
    own = Images(
        generator.integers(-2, 3, (30, 4)).astype(float),
        generator.integers(-2, 3, (30, 4, 2)).astype(float),
        generator.integers(0, 4, 30),
    )
    table = margins_table(Affine({"a": own, "b": own}), ["a"], ["a", "b"], 0, 2).to_pandas()
    for point in np.array([[0, 0], [1, 0], [1, 2], [2, 2], [0.5, 1.5]]):
        assert (right_by(table, point).to_numpy() == own.right(point)).all()


def test_rivals_that_never_decide_are_left_out() -> None:
    world = affine(tasks=3, images=200, classes=12, reach=0.3)
    table = table_of(world)
    rivals = table["rival"].notna().sum()
    assert 0 < rivals < 200 * 3 * 11 / 4
    assert table["right"].notna().any()
    assert (table["right"].isna() == table["rival"].notna()).all()
    # None could go as well: each is the one that decides somewhere, or two would be equal.
    known = table[table["right"].isna()].groupby(["task", "image"]).size()
    assert known.min() >= 1


def test_an_image_without_numbers_is_wrong() -> None:
    start, slopes = np.zeros((2, 3)), np.zeros((2, 3, 1))
    start[0, 1], start[1, 0] = np.nan, 5
    found = list(deciding(start, slopes, np.array([0, 0]), 0, 1))
    assert [one.right for one in found] == [False, True]
