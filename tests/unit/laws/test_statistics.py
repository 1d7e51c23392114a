"""Laws that every registered statistic keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from taskgrid import plugins
from taskgrid.errors import DataError
from taskgrid.plugins.cards import statistic_card
from taskgrid.statistics.computing import compute_statistic
from taskgrid.statistics.seam import IMAGES, Examples
from taskgrid.store.weights import State, digest_state
from tests.unit.example_grid import World, world
from tests.unit.example_statistics import examples

STATISTICS = plugins.names("statistic")
SUMS = [name for name in STATISTICS if "sums over images" in statistic_card(name).title]


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b"), val=9)


def compute(
    name: str, small: World, shown: Examples, seed: int = 0, batch: int = 32, **options: Any
) -> State:
    weights, head = small.experts["a"], small.tasks["a"].head
    return compute_statistic(
        name, small.card, weights, head, shown, options, seed=seed, batch_size=batch
    )


def part(shown: Examples, rows: list[int]) -> Examples:
    return shown.take(np.array(rows, dtype=np.int64))


def close(left: State, right: State) -> bool:
    """Equal but for rounding in float32, relative to the largest entry of a tensor."""
    return left.keys() == right.keys() and all(
        bool((left[key] - right[key]).abs().max() <= 2e-5 * right[key].abs().max()) for key in left
    )


@pytest.mark.parametrize("name", STATISTICS)
def test_law_finite_counted_and_on_the_cpu(name: str, small: World) -> None:
    found = compute(name, small, examples(small, "a"))
    assert int(found[IMAGES]) == 9
    assert all(torch.isfinite(tensor).all() for tensor in found.values())
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert any(tensor.abs().max() > 0 for key, tensor in found.items() if key != IMAGES)


@pytest.mark.parametrize("name", STATISTICS)
def test_law_the_same_bits_from_the_same_seed(name: str, small: World) -> None:
    torch.manual_seed(1)
    first = compute(name, small, examples(small, "a"), seed=3, images=4)
    torch.manual_seed(2)
    again = compute(name, small, examples(small, "a"), seed=3, images=4)
    assert digest_state(first) == digest_state(again)
    other = compute(name, small, examples(small, "a"), seed=4, images=4)
    assert digest_state(first) != digest_state(other)


@pytest.mark.parametrize("name", STATISTICS)
def test_law_batches_do_not_matter(name: str, small: World) -> None:
    whole = compute(name, small, examples(small, "a"), batch=32)
    assert close(compute(name, small, examples(small, "a"), batch=2), whole)


@pytest.mark.parametrize("name", STATISTICS)
def test_law_the_order_of_images_does_not_matter(name: str, small: World) -> None:
    shown = examples(small, "a")
    turned = part(shown, list(range(9))[::-1])
    assert close(compute(name, small, turned), compute(name, small, shown))


def test_law_one_of_the_base_is_a_sum() -> None:
    # It is computed task by task, and added up.
    assert {name for name in STATISTICS if statistic_card(name).per == "base"} <= {*SUMS}


@pytest.mark.parametrize("name", SUMS)
def test_law_sums_add_up(name: str, small: World) -> None:
    shown = examples(small, "a")
    one, two = (compute(name, small, part(shown, rows)) for rows in ([0, 1, 2, 3], [4, 5, 6, 7, 8]))
    assert close({key: one[key] + two[key] for key in one}, compute(name, small, shown))


@pytest.mark.parametrize("name", STATISTICS)
def test_law_it_depends_on_the_weights(name: str, small: World) -> None:
    shown, head = examples(small, "a"), small.tasks["a"].head
    of_base = compute_statistic(name, small.card, small.base, head, shown)
    assert not close(of_base, compute(name, small, shown))


@pytest.mark.parametrize("name", STATISTICS)
def test_law_training_images_by_default_and_test_images_by_name_alone(name: str) -> None:
    options = statistic_card(name).options
    assert options["split"].default == "train"
    assert options["images"].shape == "integer"


@pytest.mark.parametrize("name", STATISTICS)
def test_law_no_images_are_refused(name: str, small: World) -> None:
    with pytest.raises(DataError, match="at least one image"):
        compute(name, small, part(examples(small, "a"), []))


@pytest.mark.parametrize("name", STATISTICS)
def test_law_what_is_not_finite_is_refused(name: str, small: World) -> None:
    shown, head = examples(small, "a"), small.tasks["a"].head
    diverged = {key: tensor * torch.nan for key, tensor in small.base.items()}
    with pytest.raises(DataError, match="not finite"):
        compute_statistic(name, small.card, diverged, head, shown)
