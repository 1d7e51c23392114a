"""What stays on the device for as long as an engine lives: base, vectors, heads, images.

Each is asked of the material once, when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from taskgrid.errors import DataError
from taskgrid.evaluation.engine.material import LabelledImages, Material
from taskgrid.evaluation.plan.setting import Shown
from taskgrid.machine.memory import available_bytes
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, Sources
from taskgrid.merging.walks import Walk, walk
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.models.inference import Pixels
from taskgrid.store.weights import State

_RESIDENT_SHARE = 0.5
"""Share of the memory that is free when the first images come, and that no vector will need, which
images may take."""

_WALK_SHARE = 0.25
"""Share of the memory that is free when the first merge comes, and that no vector will need, which a
walk over subsets may keep."""


class Resident:
    """A material on a device.

    Args:
        material: base, experts, vectors, heads, images.
        device: where to compute.
        image_bytes: memory that images may take on the device; None measures what is free.
        vectors: task vectors that may be asked for; they have their room before images do.
    """

    def __init__(
        self,
        material: Material,
        device: torch.device,
        image_bytes: int | None = None,
        vectors: int = 0,
    ) -> None:
        self.device = device
        self._material = material
        self._vector_count = vectors
        self._image_bytes = image_bytes
        self._vectors: dict[str, State] = {}
        self._heads: dict[str, Head] = {}
        self._images: dict[tuple[str, Shown], LabelledImages] = {}
        self._pixels: dict[tuple[str, Shown], Pixels] = {}
        self._labels: dict[tuple[str, Shown], torch.Tensor] = {}

    @property
    def card(self) -> ModelCard:
        """The base model's card."""
        return self._material.card

    @cached_property
    def base(self) -> State:
        """theta_0."""
        return self.place(self._material.base())

    def expert(self, task: str) -> State:
        """Return theta_t, which is not kept."""
        return self.place(self._material.expert(task))

    def vector(self, task: str) -> State:
        """Return tau_t."""
        if task not in self._vectors:
            self._vectors[task] = self.place(self._material.vector(task))
        return self._vectors[task]

    def head(self, task: str) -> Head:
        """Return a task's head."""
        if task not in self._heads:
            self._heads[task] = self._material.tasks[task].head().to(self.device)
        return self._heads[task]

    def labels(self, task: str, split: Shown) -> torch.Tensor:
        """Return the true classes of a split's images, ``(n,)``.

        Raises:
            DataError: if there are no images, or a label has no class in the head.
        """
        if (task, split) not in self._labels:
            images = self._open(task, split)
            _check_labels(task, split, images, self.head(task))
            self._labels[task, split] = torch.from_numpy(images.labels.copy()).to(self.device)
        return self._labels[task, split]

    def pixels(self, task: str, split: Shown) -> Pixels:
        """Return the images of a split: on the device where they fit, else streamed from the map."""
        if (task, split) not in self._pixels:
            self._pixels[task, split] = self._fitting(self._open(task, split))
        return self._pixels[task, split]

    def walk(self, recipe: MergeRecipe, needs: Mapping[str, str]) -> Walk:
        """Return what prepares merges of what is on the device, subset after subset.

        Ask for it when the first merge comes: it measures what memory is free.

        Args:
            recipe: how to merge.
            needs: the statistics that the method reads: name -> label.
        """
        sources = self._material.sources(self.vector, needs)
        placed = replace(sources, statistic=self._placed(sources), learned=self._learned(sources))
        return walk(recipe, self.base, placed, self._spare(_WALK_SHARE))

    def arrive(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def place(self, state: State) -> State:
        """Return a state on the device."""
        return {name: tensor.to(self.device) for name, tensor in state.items()}

    def _placed(self, sources: Sources) -> Callable[[str, str], State]:
        known: dict[tuple[str, str], State] = {}

        def statistic(name: str, task: str) -> State:
            assert sources.statistic is not None
            if (name, task) not in known:
                known[name, task] = self.place(sources.statistic(name, task))
            return known[name, task]

        return statistic

    def _learned(self, sources: Sources) -> Callable[[tuple[str, ...]], Learned]:
        def learned(subset: tuple[str, ...]) -> Learned:
            assert sources.learned is not None
            return self.place(dict(sources.learned(subset)))

        return learned

    def _open(self, task: str, split: Shown) -> LabelledImages:
        if (task, split) not in self._images:
            self._images[task, split] = self._material.tasks[task].images(split)
        return self._images[task, split]

    def _fitting(self, images: LabelledImages) -> Pixels:
        if self._image_bytes is None:
            self._image_bytes = self._spare(_RESIDENT_SHARE)
        size = len(images) * int(np.prod(images.pixels.shape[1:]))
        if size > self._image_bytes:
            # Batches are gathered from the memory map as they are needed.
            return images
        self._image_bytes -= size
        return torch.from_numpy(images[:]).to(self.device)

    def _spare(self, share: float) -> int:
        missing = self._vector_count - len(self._vectors)
        return spare_bytes(free_bytes(self.device), missing, vector_bytes(self.base), share)


def _check_labels(task: str, split: Shown, images: LabelledImages, head: Head) -> None:
    if not len(images):
        raise DataError(f"task {task!r} has no {split} images to evaluate on")
    highest = int(images.labels.max())
    if highest >= len(head.classes) or int(images.labels.min()) < 0:
        raise DataError(
            f"task {task!r}: its {split} labels go up to {highest}, but its head has "
            f"{len(head.classes)} classes; correct the task's class names"
        )


def vector_bytes(base: State) -> int:
    """Return the size of a task vector: float32 for every weight of the base."""
    return 4 * sum(tensor.numel() for tensor in base.values() if tensor.is_floating_point())


def spare_bytes(free: int, vectors: int, each: int, share: float) -> int:
    """Return a share of the memory that is left when vectors to come have their room.

    Args:
        free: bytes that are free.
        vectors: how many vectors are to come.
        each: bytes of a vector.
        share: the share.
    """
    return int(share * max(0, free - vectors * each))


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()
