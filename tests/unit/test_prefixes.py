"""Sums along a walk: the same bits as each sum alone, with few additions and little memory."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.evaluation.prefixes import PrefixSums
from taskgrid.merging.additive import weighted_sum
from taskgrid.store.weights import State

TASKS = "abcdefgh"
SIZE = 5 * 8


def vector(task: str) -> State:
    generator = torch.Generator().manual_seed(ord(task))
    return {"w": torch.randn(4, generator=generator), "b": torch.randn(1, generator=generator)}


SUBSETS = [s for k in range(1, 9) for s in itertools.combinations(TASKS, k)]


@settings(max_examples=30, deadline=None)
@given(
    walk=st.lists(st.sampled_from(SUBSETS), min_size=1, max_size=25),
    room=st.sampled_from([0, 2 * SIZE, 5 * SIZE, 100 * SIZE]),
)
def test_every_walk_gives_the_bits_of_each_sum_alone(
    walk: list[tuple[str, ...]], room: int
) -> None:
    sums = PrefixSums(vector, room)
    for subset in walk:
        expected = weighted_sum([(1.0, vector(task)) for task in subset])
        found = sums.of(subset)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_in_the_order_of_a_dictionary_each_subset_costs_one_addition() -> None:
    sums = PrefixSums(vector, 100 * SIZE)
    for subset in sorted(SUBSETS):
        sums.of(subset)
    # All but the eight single tasks, which are copies.
    assert sums.additions == len(SUBSETS) - len(TASKS)


@pytest.mark.parametrize(("room", "kept"), [(0, 1), (3, 3), (100, 8)])
def test_no_more_sums_are_kept_than_there_is_room_for(room: int, kept: int) -> None:
    sums = PrefixSums(vector, room * SIZE)
    sums.of(tuple(TASKS))
    assert len(sums._kept) == kept
