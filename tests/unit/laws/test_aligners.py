"""What holds of every aligner."""

from __future__ import annotations

import pytest
import torch

from taskgrid.alignment import aligners, transport
from taskgrid.plugins.registry import names
from taskgrid.store.weights import digest_state
from taskgrid.vectors import TaskVector
from tests.unit.alignment.test_door import other
from tests.unit.example_grid import world


def test_the_registered_ones_are_listed() -> None:
    assert aligners() == tuple(sorted(names("aligner"))) and aligners()


@pytest.mark.parametrize("aligner", aligners())
def test_an_expert_belongs_to_the_target_and_is_the_same_each_time(aligner: str) -> None:
    small = world(("a", "b"))
    there = other(small.base)
    cards = {"source_card": small.card}
    both = [transport(aligner, small.base, small.experts, there, seed=1, **cards) for _ in range(2)]
    assert both[0].keys() == {"a", "b"}
    for task, expert in both[0].items():
        vector = TaskVector.between(there, expert)
        assert vector.norm() > 0
        assert digest_state(expert) == digest_state(both[1][task])


@pytest.mark.parametrize("aligner", aligners())
def test_the_base_itself_is_carried_to_the_base(aligner: str) -> None:
    # A transport is linear: no vector, no vector.
    small = world(("a",))
    there = other(small.base)
    moved = transport(aligner, small.base, {"a": small.base}, there)["a"]
    assert all(torch.equal(moved[key], there[key]) for key in there)


@pytest.mark.parametrize("aligner", aligners())
def test_tasks_do_not_change_one_another(aligner: str) -> None:
    small = world(("a", "b"))
    there = other(small.base)
    alone = transport(aligner, small.base, {"a": small.experts["a"]}, there)["a"]
    beside = transport(aligner, small.base, small.experts, there)["a"]
    assert digest_state(alone) == digest_state(beside)
