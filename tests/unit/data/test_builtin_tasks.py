"""The built-in tasks: deterministic, balanced, free of overlap."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from taskgrid.data.builtin import (
    CONTROL_TASK,
    DEFAULT_TASKS,
    BuiltinTask,
    builtin_names,
    builtin_task,
    sample,
    samples,
)
from taskgrid.data.builtin.task import generator
from taskgrid.errors import ConfigError

PINNED: dict[str, str] = {
    "handwritten": "56c81679110a6589",
    "street_digits": "1ca2472952e21025",
    "road_signs": "18a344a55aee4562",
    "textures": "a2f4ba16378f4afb",
    "pictograms": "f1df6292c198e176",
    "counting": "ee6b8d29a0533842",
    "flags": "fe0991ef39ca365a",
    "shapes": "2273ebe5775d86a5",
    "print_digits": "f3b7486ea3b33cc0",
    "print_letters": "436a71777df773b4",
    "street_letters": "66a5c51e7a7a33e5",
    "catalogue": "67278740b99e3e06",
}
"""Digest of the first three train images and labels of each task: a change here changes every result."""


def digest(task: BuiltinTask) -> str:
    parts = hashlib.sha256()
    for index in range(3):
        one = sample(task, "train", index)
        parts.update(f"{one.id} {one.label} {one.pixels.shape}".encode())
        parts.update(one.pixels.tobytes())
    return parts.hexdigest()[:16]


def test_registry_has_the_tasks_that_the_studies_need() -> None:
    assert len(builtin_names()) >= 9
    assert len(DEFAULT_TASKS) == 5
    assert CONTROL_TASK in builtin_names() and CONTROL_TASK not in DEFAULT_TASKS
    for name in builtin_names():
        assert builtin_task(name).name == name


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="handwritten"):
        builtin_task("mnist")
    task = builtin_task("handwritten")
    with pytest.raises(KeyError, match="train, test"):
        sample(task, "val", 0)
    with pytest.raises(IndexError, match="360 images"):
        sample(task, "test", 360)


@pytest.mark.parametrize("name", builtin_names())
def test_classes_templates_and_counts(name: str) -> None:
    task = builtin_task(name)
    assert len(set(task.classes)) == len(task.classes) >= 8
    assert task.templates and all(template.count("{}") == 1 for template in task.templates)
    assert all(template.endswith(".") for template in task.templates)
    assert set(task.counts) == {"train", "test"}
    assert task.counts["test"] >= 360


@pytest.mark.parametrize("name", builtin_names())
def test_images_are_deterministic_and_pinned(name: str) -> None:
    task = builtin_task(name)
    late, early = sample(task, "test", 7), sample(task, "test", 3)
    again = sample(task, "test", 7)
    assert np.array_equal(late.pixels, again.pixels) and late.label == again.label
    assert not np.array_equal(late.pixels, early.pixels)
    assert late.pixels.dtype == np.uint8 and late.pixels.ndim == 3 and late.pixels.shape[2] == 3
    assert digest(task) == PINNED[name]


@pytest.mark.parametrize("name", builtin_names())
def test_splits_are_balanced_and_do_not_share_an_image(name: str) -> None:
    task = builtin_task(name)
    seen: dict[str, set[bytes]] = {}
    for split, count in task.counts.items():
        drawn = list(samples(task, split))
        assert len(drawn) == count == len({one.id for one in drawn})
        labels = Counter(one.label for one in drawn)
        assert set(labels) == set(range(len(task.classes)))
        # Real digits are nearly balanced, rendered tasks exactly (up to the rest of a division).
        spread = max(labels.values()) - min(labels.values())
        assert spread <= (10 if name == "handwritten" else 1)
        seen[split] = {hashlib.sha256(one.pixels.tobytes()).digest() for one in drawn}
    assert not seen["train"] & seen["test"]


def test_analogy_tasks_share_words_across_styles() -> None:
    words = {name: builtin_task(name).classes for name in builtin_names()}
    assert words["print_digits"] == words["street_digits"]
    assert words["print_letters"] == words["street_letters"]


def test_generators_depend_on_every_part_of_the_key() -> None:
    first = generator("a", "b", 1).integers(0, 1 << 30, 4)
    assert np.array_equal(first, generator("a", "b", 1).integers(0, 1 << 30, 4))
    for other in (("a", "b", 2), ("a", "c", 1), ("ab", "", 1)):
        assert not np.array_equal(first, generator(*other).integers(0, 1 << 30, 4))
