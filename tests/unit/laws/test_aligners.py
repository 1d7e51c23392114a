"""What holds of every aligner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from taskgrid.alignment import Side, aligners, transport
from taskgrid.alignment.door import transport_of
from taskgrid.alignment.images import Images
from taskgrid.alignment.kept import read_transport, save_transport
from taskgrid.errors import DataError
from taskgrid.plugins.cards import aligner_card, plugin_options
from taskgrid.plugins.registry import names
from taskgrid.store.weights import State, digest_state
from taskgrid.vectors import TaskVector, subtract
from tests.unit.alignment.test_door import other
from tests.unit.example_grid import World, world
from tests.unit.example_statistics import examples


def quick(aligner: str) -> dict[str, Any]:
    """Options with which an aligner that trains is done soon."""
    return {"steps": 2} if "steps" in aligner_card(aligner).options else {}


def sides(small: World, there: State) -> tuple[Side, Side]:
    return Side(small.base, small.card), Side(there, replace(small.card, base=digest_state(there)))


def brought(
    aligner: str, small: World, there: State, experts: dict[str, State] | None = None, **more: Any
) -> dict[str, State]:
    """Experts here, by an aligner that is shown all that it may ask for."""
    source, target = sides(small, there)
    return transport(
        aligner,
        small.base,
        small.experts if experts is None else experts,
        there,
        source_card=source.card,
        target_card=target.card,
        images={task: examples(small, task) for task in small.tasks},
        heads={task: one.head for task, one in small.tasks.items()},
        **{"seed": 1, **quick(aligner), **more},
    )


def test_the_registered_ones_are_listed() -> None:
    assert aligners() == tuple(sorted(names("aligner"))) and aligners()


@pytest.mark.parametrize("aligner", aligners())
def test_an_expert_belongs_to_the_target_and_is_the_same_each_time(aligner: str) -> None:
    small = world(("a", "b"))
    there = other(small.base)
    both = [brought(aligner, small, there) for _ in range(2)]
    assert both[0].keys() == {"a", "b"}
    for task, expert in both[0].items():
        vector = TaskVector.between(there, expert)
        assert vector.norm() > 0
        assert digest_state(expert) == digest_state(both[1][task])


# Few-shot fine-tuning stands in the place of a transport, and carries nothing.
LINEAR = [name for name in aligners() if name != "few_shot"]


@pytest.mark.parametrize("aligner", LINEAR)
def test_the_base_itself_is_carried_to_the_base(aligner: str) -> None:
    # A transport is linear: no vector, no vector.
    small = world(("a",))
    there = other(small.base)
    moved = brought(aligner, small, there, {"a": small.base})["a"]
    assert all(torch.equal(moved[key], there[key]) for key in there)


@pytest.mark.parametrize("aligner", aligners())
def test_tasks_do_not_change_one_another(aligner: str) -> None:
    small = world(("a", "b"))
    there = other(small.base)
    alone = brought(aligner, small, there, {"a": small.experts["a"]})["a"]
    assert digest_state(alone) == digest_state(brought(aligner, small, there)["a"])


@pytest.mark.parametrize("aligner", aligners())
def test_a_file_brings_the_same_experts(aligner: str, tmp_path: Path) -> None:
    small = world(("a",))
    source, target = sides(small, other(small.base))
    vector = subtract(small.base, small.experts["a"], "a")
    heads = {"a": small.tasks["a"].head}
    shown = Images({"a": examples(small, "a")}, heads)
    found = transport_of(aligner, source, target, "a", vector, quick(aligner), 1, shown)
    save_transport(tmp_path / "t.safetensors", found, {})
    again, _ = read_transport(tmp_path / "t.safetensors", source.end, target.end)
    one, two = found.exact(vector), again.exact(vector)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert found.map.keys == again.map.keys


@pytest.mark.parametrize("aligner", aligners())
def test_what_looks_at_images_cannot_do_without(aligner: str) -> None:
    small = world(("a",))
    source, target = sides(small, other(small.base))
    vector, options = subtract(small.base, small.experts["a"], "a"), quick(aligner)
    sees = aligner_card(aligner).looks_at(plugin_options("aligner", aligner, options))
    if sees == "nothing":
        assert transport_of(aligner, source, target, "a", vector, options)
    else:
        with pytest.raises(DataError, match="needs at least one image"):
            transport_of(aligner, source, target, "a", vector, options)
