"""Git Re-Basin as an aligner: experts arrive under the target's names, other towers are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from taskgrid.alignment import AlignContext, Side, transport
from taskgrid.alignment.aligners.rebasin import ALIGNER, _losses
from taskgrid.alignment.images import Images
from taskgrid.alignment.maps import Axes
from taskgrid.alignment.spaces import spaces_of
from taskgrid.errors import LineageError
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.cards import plugin_options
from taskgrid.statistics.seam import Examples
from taskgrid.store.weights import State, digest_state
from taskgrid.vectors import subtract
from tests.unit.alignment.test_door import other
from tests.unit.alignment.test_spaces import group_element
from tests.unit.example_grid import World, world


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b"))


def renamed(small: World, state: State, seed: int) -> State:
    """A state under the names of a random member of the group."""
    spaces = spaces_of(small.card, {key: tuple(one.shape) for key, one in state.items()})
    return Axes(spaces.axes_by(group_element(spaces, seed)))(state)


def test_experts_of_a_renamed_base_arrive_as_their_renamed_selves(small: World) -> None:
    there = renamed(small, small.base, 3)
    card = replace(small.card, base=digest_state(there))
    moved = transport(
        "rebasin", small.base, small.experts, there, source_card=small.card, target_card=card
    )
    for task, expert in moved.items():
        wanted = renamed(small, small.experts[task], 3)
        for key, tensor in expert.items():
            torch.testing.assert_close(tensor, wanted[key], rtol=2**-22, atol=1e-6)


def shown(small: World) -> dict[str, dict]:
    """Images and heads of both tasks, as ``transport`` takes them."""
    return {
        "images": {task: Examples(*one.val) for task, one in small.tasks.items()},
        "heads": {task: one.head for task, one in small.tasks.items()},
    }


@pytest.mark.parametrize("by", ["activations", "straight_through"])
def test_by_images_they_do_so_too(small: World, by: str) -> None:
    there = renamed(small, small.base, 3)
    card = replace(small.card, base=digest_state(there))
    both = {"source_card": small.card, "target_card": card}
    more = {"steps": 2} if by == "straight_through" else {}
    moved = transport(
        "rebasin", small.base, small.experts, there, **both, **shown(small), by=by, **more
    )
    wanted = renamed(small, small.experts["a"], 3)
    for key, tensor in moved["a"].items():
        torch.testing.assert_close(tensor, wanted[key], rtol=2**-22, atol=1e-6)


@pytest.mark.parametrize("by", ["weights", "activations", "straight_through"])
def test_the_residual_stream_can_be_left_alone(small: World, by: str) -> None:
    there = other(small.base)
    card = replace(small.card, base=digest_state(there))
    both = {"source_card": small.card, "target_card": card}
    given = {} if by == "weights" else shown(small)
    stays = transport(
        "rebasin",
        small.base,
        small.experts,
        there,
        by=by,
        residual="identity",
        steps=1,
        **both,
        **given,
    )["a"]
    for key, same in {
        "proj": True,
        "conv1.weight": True,
        "transformer.resblocks.0.mlp.c_fc.bias": False,
    }.items():
        tau = small.experts["a"][key] - small.base[key]
        assert torch.allclose(stays[key], there[key] + tau, rtol=0, atol=1e-6) == same


def test_the_loss_of_the_straight_through_is_that_of_the_heads_halfway(small: World) -> None:
    there = other(small.base)
    card = replace(small.card, base=digest_state(there))
    images = Images(shown(small)["images"], shown(small)["heads"], batch_size=5)
    context = AlignContext(Side(small.base, small.card), Side(there, card), images=images)
    middle = {key: (there[key] + small.base[key]) / 2 for key in there}
    encoder = ImageEncoder.from_card(card, middle)
    right = []
    for batch in context.batches():
        logs = small.tasks[batch.task].head.logits(encoder(batch.inputs)).double().log_softmax(-1)
        right += [-float(row[label]) for row, label in zip(logs, batch.labels, strict=True)]
    assert len(right) == len(images) == 26
    got = sum(float(loss(middle)) for loss in _losses(context))
    assert got == pytest.approx(sum(right) / len(right), rel=1e-5)


def test_there_and_back_is_where_it_began(small: World) -> None:
    there = other(small.base)
    card = replace(small.card, base=digest_state(there))
    vector = subtract(small.base, small.experts["a"], "a")
    context = AlignContext(
        Side(small.base, small.card),
        Side(there, card),
        "a",
        vector,
        plugin_options("aligner", "rebasin", {}),
    )
    found = ALIGNER.align(context)
    back = found.then(found.inverse())(vector)
    assert all(torch.equal(back[key], vector[key]) for key in vector)
    assert not torch.equal(found(vector)["proj"], vector["proj"])


def test_towers_of_another_kind_are_refused(small: World) -> None:
    def refused(base: State, words: str, **kind: object) -> None:
        card = replace(small.card, base=digest_state(base), **kind)
        both = {"source_card": small.card, "target_card": card}
        with pytest.raises(LineageError, match=words):
            transport("rebasin", small.base, small.experts, base, **both)

    there = other(small.base)
    refused(there, "with gelu, the target with quick_gelu, and no other", activation="quick_gelu")
    vision = {**small.card.tower["vision_cfg"], "head_width": 4}
    refused(there, "has 2 heads in a block, the target 4", tower={"vision_cfg": vision})
    cut = {**there, "positional_embedding": there["positional_embedding"][:4].clone()}
    refused(cut, r"'positional_embedding' is \(5, 16\) in the source and \(4, 16\) in the target")
    with pytest.raises(LineageError, match="give their cards"):
        transport("rebasin", small.base, small.experts, there)
