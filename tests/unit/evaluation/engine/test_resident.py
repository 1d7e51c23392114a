"""What stays on the device: vectors have their room before images and sums take theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.evaluation.engine import resident
from taskgrid.evaluation.engine.material import LabelledImages, Material, TaskMaterial
from taskgrid.evaluation.engine.resident import Resident, spare_bytes, vector_bytes
from taskgrid.evaluation.grid import evaluate_grid
from taskgrid.evaluation.plan.setting import Split
from taskgrid.evaluation.precision.proving import few_images
from tests.unit.example_grid import world

SIZES = st.integers(0, 1 << 40)


BASE = {"w": torch.zeros(10, 100, dtype=torch.bfloat16), "steps": torch.tensor(3)}


def images(split: Split) -> LabelledImages:
    pixels = np.zeros((10, 10, 10, 1), np.uint8)
    return LabelledImages(pixels, np.arange(10), np.zeros(10, np.int64))


def material() -> Material:
    """Return vectors of 4,000 bytes, images of 1,000 bytes per split."""
    task = TaskMaterial(
        head=lambda: pytest.fail("no head is needed"),
        images=images,
        vector=lambda: {"w": torch.zeros(10, 100)},
    )
    return Material(world("a").card, lambda: BASE, dict.fromkeys("abc", task))


@given(free=SIZES, vectors=st.integers(0, 30), each=SIZES, share=st.sampled_from([0.25, 0.5]))
def test_what_is_spared_and_all_vectors_fit_together(
    free: int, vectors: int, each: int, share: float
) -> None:
    spare = spare_bytes(free, vectors, each, share)
    assert 0 <= spare <= share * free
    assert spare == 0 or spare + vectors * each <= free
    assert spare_bytes(free, 0, each, share) == int(share * free)


def test_a_vector_has_float32_for_every_weight() -> None:
    assert vector_bytes(BASE) == 4000


@pytest.mark.parametrize(
    ("vectors", "there", "free", "held"),
    [
        (0, 0, 2000, True),
        (0, 0, 1999, False),
        (3, 0, 13_999, False),
        (3, 0, 14_000, True),
        (3, 2, 6000, True),
        (3, 2, 5999, False),
    ],
)
def test_images_take_half_of_what_vectors_leave(
    monkeypatch: pytest.MonkeyPatch, vectors: int, there: int, free: int, held: bool
) -> None:
    monkeypatch.setattr(resident, "free_bytes", lambda device: free)
    one = Resident(material(), torch.device("cpu"), vectors=vectors)
    for task in "abc"[:there]:
        one.vector(task)
    assert isinstance(one.pixels("a", "val"), torch.Tensor) == held


def test_a_walk_takes_a_quarter_of_what_vectors_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "free_bytes", lambda device: 20_000)
    monkeypatch.setattr(resident, "walk", lambda recipe, base, sources, keep: keep)
    one = Resident(material(), torch.device("cpu"), vectors=3)
    assert one.walk(None, {}) == 2000  # type: ignore[arg-type, comparison-overlap]
    one.vector("a")
    assert one.walk(None, {}) == 3000  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize(("evaluation", "counts"), [("plain", {0, 3, 1}), ("tangent", {3})])
def test_engines_that_merge_leave_room_for_every_vector(
    monkeypatch: pytest.MonkeyPatch, evaluation: Any, counts: set[int]
) -> None:
    # None where nothing is merged; three when the first merge comes; one when images come after two.
    there, asked = world(val=8, test=8), set()

    def spied(free: int, vectors: int, each: int, share: float) -> int:
        asked.add(vectors)
        return 1 << 30

    monkeypatch.setattr(resident, "spare_bytes", spied)
    evaluate_grid(
        there.base, there.card, there.tasks, experts=there.experts, lambdas=[0.5],
        subsets=[["a", "b"]], evaluation=evaluation, batch_size=8,
    )  # fmt: skip
    assert asked == counts


def test_a_material_tells_how_many_vectors_there_are() -> None:
    some = material()
    control = replace(some.tasks["c"], vector=None)
    some = replace(some, tasks={**some.tasks, "c": control})
    assert some.vector_count == few_images(some, 3).vector_count == 2
