"""Points as text: one spelling for each, and the numbers back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import (
    format_lambda,
    point_order,
    point_product,
    point_scale,
    point_text,
    read_point,
)

NUMBERS = st.integers(-3_000_000, 3_000_000).map(lambda micro: micro / 10**6)
NAMED = st.dictionaries(
    st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True), NUMBERS, min_size=1, max_size=5
)


@given(NUMBERS)
def test_a_point_with_one_coefficient_is_a_lambda(number: float) -> None:
    text = point_text(number)
    found = read_point(text)
    assert text == format_lambda(number) == found.text
    assert found.scale == found.lambda_value == float(text) == point_scale(text)
    assert not found.named and found.of("anything") == found.scale


@given(NAMED)
def test_a_point_with_named_coefficients_gives_them_back(named: dict[str, float]) -> None:
    text = point_text(named)
    found = read_point(text)
    assert found.text == text == point_text(dict(reversed(named.items())))
    assert {task: found.of(task) for task in named} == {
        t: float(format_lambda(n)) for t, n in named.items()
    }
    if len({format_lambda(number) for number in named.values()}) == 1:
        assert text == format_lambda(next(iter(named.values())))
    else:
        assert (
            found.scale is None and found.lambda_value == 1 and list(found.named) == sorted(named)
        )


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"a": 0.3}, "0.30"),
        ({"b": 0.3, "a": 0.1 + 0.2}, "0.30"),
        ({"b": -0.5, "a": 0.3}, "a:0.30,b:-0.50"),
        ({"b": 0, "a": -0.0}, "0.00"),
        ({"sun397": 1, "mnist": 0.125}, "mnist:0.125,sun397:1.00"),
    ],
)
def test_points_are_spelt_in_one_way(named: dict[str, float], text: str) -> None:
    assert point_text(named) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.3", "'0.3' is called '0.30'; ask for that instead"),
        ("b:0.50,a:0.30", "is called 'a:0.30,b:0.50'"),
        ("a:0.30,b:0.30", "is called '0.30'"),
        ("a:0.3,b:0.50", "is called 'a:0.30,b:0.50'"),
        ("a:0.30", "is called '0.30'"),
        ("a:0.30,a:0.50", "each task once"),
        (":0.30", "each task once"),
        ("a:0.30,b", "is no point: '' is not a number"),
        ("a:0.30,b:much", "'much' is not a number"),
        ("", "'' is not a number"),
        ("nan", "not a finite number"),
        ("a:inf,b:0.00", "not a finite number"),
        ("0.1234567", "more than 6 decimals"),
    ],
)
def test_other_spellings_are_told_the_right_one(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_point(text)


def test_a_point_needs_a_task() -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        point_text({})


def test_products_hold_every_combination_once_in_order() -> None:
    found = point_product({"b": [0.5, 0.0, 0.5], "a": [0.5, -1.0]})
    assert found == (
        "0.50", "a:-1.00,b:0.00", "a:-1.00,b:0.50", "a:0.50,b:0.00",
    )  # fmt: skip


@given(st.lists(NUMBERS, max_size=5), st.lists(NAMED, max_size=3))
def test_points_are_sorted_by_lambda_named_ones_last(
    numbers: list[float], named: list[dict[str, float]]
) -> None:
    texts = sorted({point_text(one) for one in [*numbers, *named]}, key=point_order)
    scales = [point_scale(text) for text in texts]
    single = [scale for scale in scales if scale is not None]
    assert single == sorted(single)
    assert all(scale is None for scale in itertools.islice(scales, len(single), None))
