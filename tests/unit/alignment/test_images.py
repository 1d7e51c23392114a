"""What an aligner is shown: nothing that its card does not ask for, and the same images for both networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from taskgrid.alignment import AlignContext, Side, transport
from taskgrid.alignment.images import Images
from taskgrid.alignment.spaces import vit_spaces
from taskgrid.alignment.taps import correlations, observe
from taskgrid.errors import ConfigError, DataError, LineageError
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import to_input
from taskgrid.store.weights import State, digest_state
from tests.unit.alignment.test_door import other
from tests.unit.alignment.toys import looking, shared
from tests.unit.example_grid import World, world
from tests.unit.example_statistics import examples


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b"))


def there(small: World) -> State:
    """Another base, not as wild as one of random numbers."""
    drawn = other(small.base)
    return {key: tensor + 0.1 * drawn[key] for key, tensor in small.base.items()}


def sides(small: World, **source: Any) -> tuple[Side, Side]:
    base = there(small)
    return (
        Side(small.base, replace(small.card, **source)),
        Side(base, replace(small.card, base=digest_state(base))),
    )


def context(small: World, batch_size: int = 32, **source: Any) -> AlignContext:
    images = Images({task: examples(small, task) for task in "ba"}, batch_size=batch_size)
    return AlignContext(*sides(small, **source), images=images)


def brought(small: World, aligner: str, **more: Any) -> dict[str, State]:
    source, target = sides(small)
    cards = {"source_card": source.card, "target_card": target.card}
    return transport(aligner, small.base, small.experts, target.base, **cards, **more)


def all_of(small: World) -> dict[str, Any]:
    return {task: examples(small, task) for task in small.tasks}


def test_an_aligner_of_images_sees_no_labels_and_no_heads(small: World, toys: None) -> None:
    heads = {task: small.tasks[task].head for task in "ab"}
    brought(small, "looking", images=all_of(small), heads=heads)
    first, second = looking.SHOWN
    assert [list(each.the_images().examples) for each in (first, second)] == [["a"], ["b"]]
    assert (first.task, second.task) == ("a", "b")
    batches = list(first.batches())
    assert sum(len(batch.labels) for batch in batches) == 13
    assert all((batch.labels == -1).all() for batch in batches)
    with pytest.raises(LineageError, match="no head of task 'a'; its card must say"):
        first.the_head()


def test_labels_and_heads_are_shown_where_an_option_asks_for_them(small: World, toys: None) -> None:
    heads = {task: small.tasks[task].head for task in "ab"}
    found = brought(small, "looking", labels=True, images=all_of(small), heads=heads)
    seen = torch.cat([batch.labels for batch in looking.SHOWN[0].batches()])
    assert seen.tolist() == small.tasks["a"].val[1].tolist()
    assert looking.SHOWN[0].the_head().classes == heads["a"].classes
    with pytest.raises(ConfigError, match="labels of task 'a'; give the head of that task"):
        brought(small, "looking", labels=True, images=all_of(small))
    foreign = {"a": replace(heads["a"], lineage={**heads["a"].lineage, "text": "other"})}
    with pytest.raises(LineageError, match="the head of task 'a'"):
        brought(small, "looking", labels=True, images=all_of(small), heads=foreign)
    # What it was shown is in what comes of it.
    assert digest_state(found["a"]) != digest_state(
        brought(small, "looking", images=all_of(small))["a"]
    )


def test_an_aligner_without_images_says_so(small: World, toys: None) -> None:
    with pytest.raises(DataError, match="'looking' needs at least one image"):
        brought(small, "looking")
    with pytest.raises(DataError, match="at least one image"):
        brought(small, "looking", images={"b": examples(small, "b")})


def test_one_transport_for_the_bases_knows_no_task(small: World, toys: None) -> None:
    brought(small, "shared", images=all_of(small))
    (asked,) = shared.ASKED
    assert (asked.task, asked.vector, asked.images) == ("", {}, None)
    with pytest.raises(LineageError, match="shown no images; its card must say what it `sees`"):
        next(asked.batches())


def test_each_network_is_given_the_same_images_in_its_own_scale(small: World) -> None:
    given = context(small, batch_size=5, mean=(0.1, 0.2, 0.3))
    batches = list(given.batches())
    assert [(batch.task, len(batch.labels)) for batch in batches] == [
        (task, size) for task in "ab" for size in (5, 5, 3)
    ]
    pixels = torch.from_numpy(small.tasks["a"].val[0][:5])
    assert torch.equal(batches[0].inputs, to_input(pixels, small.card.mean, small.card.std))
    theirs = to_input(pixels, (0.1, 0.2, 0.3), small.card.std)
    assert torch.equal(batches[0].source_inputs, theirs)
    with pytest.raises(LineageError, match="takes images of 16 pixels, the target of 8"):
        next(context(small, image_size=16).batches())


def test_moments_are_those_of_both_networks_on_all_images(small: World) -> None:
    given = context(small)
    shapes = given.target.end.shapes
    found = given.moments()
    assert {space: tuple(one.shape) for space, one in found.items()} == {
        space: (size, size) for space, size in vit_spaces(shapes, 2).sizes.items()
    }
    inputs = torch.cat([batch.inputs for batch in given.batches()])
    towers = [
        ImageEncoder.from_card(side.the_card(), side.base).double()
        for side in (given.target, given.source)
    ]
    exact = correlations([(*(observe(tower, inputs.double()) for tower in towers),)])
    for space, one in found.items():
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, exact[space], rtol=0, atol=1e-4)
    for space, one in context(small, batch_size=4).moments().items():
        torch.testing.assert_close(one, found[space], rtol=0, atol=1e-5)


def test_moments_need_cards(small: World) -> None:
    given = context(small)
    bare = replace(given, source=Side(small.base))
    with pytest.raises(LineageError, match="give their cards"):
        bare.moments()
