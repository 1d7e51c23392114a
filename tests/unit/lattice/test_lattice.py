"""Subsets, numbers, blocks, lambdas as text: laws, by hypothesis and by enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import ConfigError
from taskgrid.lattice.blocks import Block, wide_blocks_of
from taskgrid.lattice.points import format_lambda, lambda_value
from taskgrid.lattice.subsets import (
    all_numbers,
    canonical_subset,
    numbers_of_sizes,
    parse_subset,
    subset_name,
    subset_number,
    subset_of_number,
)

NAMES = st.lists(
    st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True), unique=True, max_size=8
)


def blocks_of(numbers: Iterable[int], size: int) -> tuple[Block, ...]:
    """Cut numbers into fixed ranges: what wide blocks are where nothing is left out."""
    return tuple(Block.at(index, size) for index in sorted({n // size for n in numbers}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (-0.0, "0.00"),
        (0.3, "0.30"),
        (0.1 * 3, "0.30"),
        (1, "1.00"),
        (0.125, "0.125"),
        (-0.05, "-0.05"),
        (Decimal("0.150"), "0.15"),
        (12.5, "12.50"),
        (1e-6, "0.000001"),
    ],
)
def test_a_lambda_is_printed_as_fixed_decimals(value: float, text: str) -> None:
    assert format_lambda(value) == text


@pytest.mark.parametrize("value", [math.inf, math.nan, 1 / 3, 1e-7])
def test_a_lambda_without_a_short_decimal_is_refused(value: float) -> None:
    with pytest.raises(ConfigError):
        format_lambda(value)


@given(st.integers(-10_000_000, 10_000_000))
def test_lambda_text_round_trips_and_is_unique(micro: int) -> None:
    value = Decimal(micro).scaleb(-6)
    text = format_lambda(float(value))
    assert Decimal(text) == value
    assert format_lambda(lambda_value(text)) == text


@given(NAMES)
def test_the_order_of_tasks_never_matters(names: list[str]) -> None:
    for order in itertools.islice(itertools.permutations(names), 6):
        assert subset_name(order) == subset_name(names)
    assert parse_subset(subset_name(names)) == canonical_subset(names)


@given(NAMES, st.data())
def test_numbers_and_subsets_are_in_bijection(names: list[str], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, (1 << len(names)) - 1))
    subset = subset_of_number(number, names)
    assert subset_number(subset, names) == number
    assert len(subset) == number.bit_count()


@given(NAMES, st.from_regex(r"new[0-9]", fullmatch=True))
def test_appending_a_task_keeps_every_number(names: list[str], new: str) -> None:
    if new in names:
        return
    for number in range(1 << len(names)):
        subset = subset_of_number(number, names)
        assert subset_number(subset, [*names, new]) == number


def test_numbers_of_sizes_enumerate_the_combinations() -> None:
    order = ["a", "b", "c", "d", "e"]
    got = {subset_of_number(n, order) for n in numbers_of_sizes(5, [1, 3])}
    assert got == {*itertools.combinations(order, 1), *itertools.combinations(order, 3)}
    assert sorted(numbers_of_sizes(5, range(1, 6))) == list(all_numbers(5))


@given(st.integers(1, 9), st.sampled_from([1, 2, 4, 64]))
def test_blocks_cover_each_number_once_and_survive_an_appended_task(tasks: int, size: int) -> None:
    blocks = blocks_of(all_numbers(tasks), size)
    covered = [n for block in blocks for n in range(block.start, block.stop) if 0 < n < 1 << tasks]
    assert covered == list(all_numbers(tasks))
    assert blocks == blocks_of(all_numbers(tasks + 1), size)[: len(blocks)]


def test_blocks_need_a_power_of_two() -> None:
    with pytest.raises(ConfigError, match="power of two"):
        wide_blocks_of([1], 3)
    assert Block.at(3, 16) == Block(3, 48, 64)
    assert Block.at(3, 16).label == "00003"


@given(st.integers(1, 9), st.sampled_from([1, 2, 4, 64]))
def test_wide_blocks_cut_a_whole_lattice_like_fixed_ones(tasks: int, size: int) -> None:
    assert wide_blocks_of(all_numbers(tasks), size) == blocks_of(all_numbers(tasks), size)


@given(
    st.lists(st.integers(1, 1023), unique=True),
    st.lists(st.integers(1024, 2047), unique=True),
    st.sampled_from([1, 2, 8, 64]),
)
def test_wide_blocks_hold_each_number_once_and_survive_an_appended_task(
    numbers: list[int], new: list[int], size: int
) -> None:
    blocks = wide_blocks_of(numbers, size)
    held = [[n for n in numbers if block.start <= n < block.stop] for block in blocks]
    assert sorted(itertools.chain(*held)) == sorted(numbers)
    for block, inside in zip(blocks, held, strict=True):
        assert 1 <= len(inside) <= size
        assert block == Block.parse(block.label, size)
        assert (block.start, block.stop) == (block.index * size, (block.index + block.span) * size)
    wider = wide_blocks_of([*numbers, *new], size)
    if len(blocks) == 1 and blocks[0].start == 0:
        assert wider[0].start == 0 and wider[0].stop >= blocks[0].stop
    else:
        assert wider[: len(blocks)] == blocks


@given(st.integers(3, 14), st.sampled_from([8, 32]), st.integers(0, 40))
def test_few_subsets_of_many_tasks_share_their_first_block(tasks: int, size: int, by: int) -> None:
    numbers = range(1, 1 << tasks, 2 * by + 1)
    first = wide_blocks_of(numbers, size)[0]
    assert first.start == 0
    # Twice as wide it would hold too much, or there is nothing left to hold.
    assert sum(n < 2 * first.stop for n in numbers) >= size or first.stop > numbers[-1]


def test_a_sample_of_a_big_lattice_needs_few_wide_blocks() -> None:
    numbers = range(1, 1 << 20, 521)
    assert len(blocks_of(numbers, 64)) > 2000
    blocks = wide_blocks_of(numbers, 64)
    assert len(blocks) < 2.5 * len(numbers) / 64
    assert blocks[-1].label == "15872-16383"


def test_unknown_and_repeated_tasks_are_named() -> None:
    with pytest.raises(ConfigError, match="'x' is not one of a, b"):
        subset_number(["x"], ["a", "b"])
    with pytest.raises(ConfigError, match="'a' occurs twice"):
        subset_name(["a", "b", "a"])
