"""What a built-in task is, and how its samples are made.

Each image has a generator of its own, seeded from (task, split, index): an image depends on nothing
else, neither on the order in which images are asked for nor on the number of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Render = Callable[[np.random.Generator, int], Pixels]


@dataclass(frozen=True)
class BuiltinTask:
    """A classification task that ships with taskgrid.

    ``templates`` have one ``{}`` for the class name. ``counts`` gives the number of images per
    split (``train``, ``test``). ``render(rng, label)`` returns uint8 RGB pixels, height x width x
    3. A task of stored images sets ``stored`` instead: split and index to (label, pixels).
    """

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    counts: Mapping[str, int]
    render: Render | None = None
    stored: Callable[[str, int], tuple[int, Pixels]] | None = None

    def __post_init__(self) -> None:
        if (self.render is None) == (self.stored is None):
            raise ValueError(f"task {self.name}: give either render or stored")


@dataclass(frozen=True)
class RenderedSample:
    """One image of a task; ``id`` is unique within the task, ``pixels`` uint8 height x width x 3."""

    id: str
    label: int
    pixels: Pixels


def generator(*key: str | int) -> np.random.Generator:
    """A counter-based generator keyed by a stable digest of ``key``, the same in every process."""
    digest = hashlib.sha256("\0".join(str(part) for part in key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def sample(task: BuiltinTask, split: str, index: int) -> RenderedSample:
    """The image ``index`` of a split. Rendered tasks cycle through the classes, so splits are balanced."""
    if split not in task.counts:
        raise KeyError(f"task {task.name} has no split {split!r}; it has {', '.join(task.counts)}")
    if not 0 <= index < task.counts[split]:
        raise IndexError(
            f"task {task.name}/{split} has {task.counts[split]} images, not {index + 1}"
        )
    if task.stored is not None:
        label, pixels = task.stored(split, index)
    else:
        assert task.render is not None
        label = index % len(task.classes)
        pixels = task.render(generator("taskgrid", task.name, split, index), label)
    return RenderedSample(id=f"{split}/{index:05d}", label=label, pixels=pixels)


def samples(task: BuiltinTask, split: str) -> Iterator[RenderedSample]:
    """All images of a split, in order of their index."""
    for index in range(task.counts[split]):
        yield sample(task, split, index)
