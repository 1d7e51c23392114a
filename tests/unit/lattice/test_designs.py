"""Designs of big lattices: laws by hypothesis, uniformity by counting, brute force where it is small."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from taskgrid.errors import ConfigError
from taskgrid.lattice.designs import (
    MOST_SUBSETS,
    Design,
    Sample,
    draw_numbers,
    number_of_rank,
    spread,
)
from taskgrid.lattice.subsets import all_numbers, numbers_of_sizes, subset_number

TASKS = tuple(f"t{index:02d}" for index in range(20))

SAMPLES = st.builds(
    Sample,
    per_size=st.integers(1, 12),
    seed=st.integers(0, 3),
    keep=st.lists(st.integers(1, 8), max_size=2).map(tuple),
)
DESIGNS = st.builds(
    Design,
    sizes=st.lists(st.integers(1, 9), max_size=2).map(tuple),
    up_to=st.none() | st.integers(1, 9),
    leave_out=st.none() | st.integers(0, 3),
    include=st.lists(
        st.lists(st.sampled_from(TASKS[:5]), min_size=1, unique=True).map(tuple), max_size=3
    ).map(tuple),
    sample=st.none() | SAMPLES,
)


def sample_numbers(tasks: int, per_size: int, seed: int) -> tuple[int, ...]:
    return draw_numbers(tasks, Sample(per_size=per_size).counts(tasks), seed)


def rank_of(number: int) -> int:
    """The place of a subset among those of its size, by increasing number."""
    bits = [bit for bit in range(number.bit_length()) if number >> bit & 1]
    return sum(math.comb(bit, taken) for taken, bit in enumerate(bits, start=1))


@given(st.integers(1, 8), st.integers(1, 8))
def test_ranks_count_the_subsets_of_a_size_by_increasing_number(tasks: int, size: int) -> None:
    numbers = list(numbers_of_sizes(tasks, [size]))
    assert [rank_of(number) for number in numbers] == list(range(len(numbers)))
    assert [number_of_rank(size, rank) for rank in range(len(numbers))] == numbers


@given(st.integers(0, (1 << 64) - 1))
def test_a_subset_of_64_tasks_comes_back_from_its_rank(number: int) -> None:
    assert number_of_rank(number.bit_count(), rank_of(number)) == number


@given(st.integers(1, 10), st.integers(1, 20), st.integers(0, 5))
def test_a_sample_has_the_asked_number_of_each_size(tasks: int, per_size: int, seed: int) -> None:
    drawn = sample_numbers(tasks, per_size, seed)
    assert drawn == sample_numbers(tasks, per_size, seed)
    assert list(drawn) == sorted(set(drawn))
    assert all(0 < number < 1 << tasks for number in drawn)
    sizes = Counter(number.bit_count() for number in drawn)
    assert sizes == {size: min(per_size, math.comb(tasks, size)) for size in range(1, tasks + 1)}
    assert set(drawn) <= set(sample_numbers(tasks, per_size + 3, seed))


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_an_appended_task_brings_no_new_subset_of_the_old_ones(
    tasks: int, per_size: int, seed: int
) -> None:
    before, after = (set(sample_numbers(count, per_size, seed)) for count in (tasks, tasks + 1))
    assert {number for number in after if number < 1 << tasks} <= before


@given(st.integers(1, 9), st.integers(0, 60), st.integers(0, 5))
def test_an_appended_task_brings_no_new_subset_into_a_total(
    tasks: int, more: int, seed: int
) -> None:
    design = Design(sample=Sample(total=tasks + 1 + more, seed=seed))
    before, after = (set(design.numbers(TASKS[:count])) for count in (tasks, tasks + 1))
    assert {number for number in after if number < 1 << tasks} <= before


@given(st.integers(2, 12), st.data())
def test_a_total_holds_every_size(tasks: int, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 2 * tasks))
    design = Design(sample=Sample(total=total))
    if total < tasks:
        with pytest.raises(ConfigError, match=rf"sample.total is {total}, .* give {tasks} or more"):
            design.numbers(TASKS[:tasks])
    else:
        sizes = {number.bit_count() for number in design.numbers(TASKS[:tasks])}
        assert sizes == set(range(1, tasks + 1))


@given(st.integers(1, 8), st.data())
def test_what_stays_after_an_appended_task_is_the_beginning_of_the_old_order(
    tasks: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, tasks))
    count = data.draw(st.integers(0, math.comb(tasks, size)))
    after = draw_numbers(tasks + 1, {size: count}, 0)
    stayed = [number for number in after if number < 1 << tasks]
    assert draw_numbers(tasks, {size: len(stayed)}, 0) == tuple(stayed)


def test_every_subset_of_a_size_is_drawn_equally_often() -> None:
    tasks, size, count, seeds = 7, 3, 9, 2000
    drawn = Counter(
        number for seed in range(seeds) for number in draw_numbers(tasks, {size: count}, seed)
    )
    cells = math.comb(tasks, size)
    expected = seeds * count / cells
    statistic = sum((drawn[number] - expected) ** 2 for number in numbers_of_sizes(tasks, [size]))
    # Draws without replacement vary less than multinomial ones, by this factor.
    statistic /= expected * (1 - count / cells) * cells / (cells - 1)
    assert chi2.sf(statistic, cells - 1) > 1e-4
    # Pairs, too: that two subsets come together is as likely for all of them.
    pairs = Counter(
        pair
        for seed in range(seeds)
        for pair in itertools.combinations(draw_numbers(tasks, {size: count}, seed), 2)
    )
    share = count * (count - 1) / (cells * (cells - 1))
    worst = max(
        abs(pairs[pair] / seeds - share)
        for pair in itertools.combinations(numbers_of_sizes(tasks, [size]), 2)
    )
    assert worst < 5 * math.sqrt(share * (1 - share) / seeds)


@given(st.integers(1, 12), st.integers(0, 5000))
def test_a_total_is_spread_evenly(tasks: int, total: int) -> None:
    counts, more = spread(tasks, total), spread(tasks, total + 1)
    assert sum(counts.values()) == min(total, (1 << tasks) - 1)
    assert all(counts[size] <= more[size] for size in counts)
    free = [count for size, count in counts.items() if count < math.comb(tasks, size)]
    assert not free or max(counts.values()) - min(free) <= 1


def test_two_thousand_subsets_of_twenty_tasks_are_drawn_without_listing_a_million() -> None:
    started = time.process_time()
    numbers = Design(sample=Sample(total=2000)).numbers(TASKS)
    assert time.process_time() - started < 0.5
    assert len(numbers) == 2000
    assert Counter(number.bit_count() for number in numbers)[10] in (115, 116)


def test_a_sample_never_changes_between_releases() -> None:
    assert sample_numbers(6, 2, 0) == (3, 4, 8, 23, 35, 40, 47, 52, 60, 61, 63)


@settings(max_examples=200)
@given(DESIGNS, st.integers(5, 8))
def test_a_design_is_the_union_of_its_choices(design: Design, tasks: int) -> None:
    order = TASKS[:tasks]
    numbers = design.numbers(order)
    assert list(numbers) == sorted(set(numbers))
    expected: set[int] = set()
    for number in all_numbers(tasks):
        size = number.bit_count()
        if (
            size in design.sizes
            or (design.up_to is not None and size <= design.up_to)
            or (design.leave_out is not None and tasks - size <= design.leave_out)
        ):
            expected.add(number)
    expected |= {subset_number(names, order) for names in design.include}
    if design.sample is not None:
        for count in {*(k for k in design.sample.keep if k < tasks), tasks}:
            expected |= set(sample_numbers(count, design.sample.per_size or 0, design.sample.seed))
    assert set(numbers) == expected
    assert len(numbers) <= design.count(tasks)


@given(DESIGNS)
def test_a_design_travels_as_json(design: Design) -> None:
    assert Design.of(json.loads(json.dumps(dataclasses.asdict(design)))) == design


@settings(max_examples=100)
@given(DESIGNS, st.integers(5, 8))
def test_an_appended_task_keeps_what_does_not_depend_on_the_full_set(
    design: Design, tasks: int
) -> None:
    if design.leave_out is not None:
        return
    if design.sample is not None:
        kept = Sample(design.sample.per_size, seed=design.sample.seed, keep=(tasks,))
        design = Design(sizes=design.sizes, up_to=design.up_to, include=design.include, sample=kept)
    assert set(design.numbers(TASKS[:tasks])) <= set(design.numbers(TASKS[: tasks + 1]))


def test_a_design_that_is_too_large_or_names_nothing_is_refused_before_it_is_listed() -> None:
    started = time.process_time()
    with pytest.raises(ConfigError, match=f"1048575 subsets of 20 tasks, more than {MOST_SUBSETS}"):
        Design(everything=True).numbers(TASKS)
    with pytest.raises(ConfigError, match="616665 subsets"):
        Design(up_to=10).numbers(TASKS)
    assert time.process_time() - started < 0.1
    assert len(Design(everything=True).numbers(TASKS[:8])) == 255
    with pytest.raises(ConfigError, match="empty subset"):
        Design(include=((),)).numbers(TASKS)
    with pytest.raises(ConfigError, match=r"lattice.subsets.include names task 'zebra'"):
        Design(include=(("zebra",),)).numbers(TASKS, "lattice.subsets")
