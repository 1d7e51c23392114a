"""Material from the workflow's files, compared with what the plan was made with as it is loaded.

torch is imported when the first file is read: a block whose rows are all known reads none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from taskgrid.errors import LineageError
from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.plan.setting import Setting, Split
from taskgrid.models.card import ModelCard
from taskgrid.provenance.digests import digest
from taskgrid.store.atomic import read_json
from taskgrid.store.images import ImageStore

if TYPE_CHECKING:
    from taskgrid.data.manifest import SplitManifest
    from taskgrid.models.heads import Head
    from taskgrid.store.weights import State


@dataclass(frozen=True)
class TaskFiles:
    """The files of one task.

    Attributes:
        images: the decoded images.
        split: the split manifest.
        head: the head's safetensors file.
        expert: the expert's safetensors file; None for a task without one.
        vector: the task vector's safetensors file; None for a task without one.
    """

    images: Path
    split: Path
    head: Path
    expert: Path | None = None
    vector: Path | None = None


@dataclass(frozen=True)
class GridFiles:
    """The files of a block; ``material.Material`` of what a setting refers to.

    Every method raises ArtifactError when a file is missing or damaged, and LineageError when it is
    not what the plan was made with.

    Attributes:
        setting: what the files should hold.
        card_file: the base model's card.
        base_file: the base's safetensors file.
        tasks: the files of each task.
    """

    setting: Setting
    card_file: Path
    base_file: Path
    tasks: Mapping[str, TaskFiles]

    @classmethod
    def listed(
        cls, setting: Setting, card: str, base: str, tasks: Sequence[str], *lists: Sequence[str]
    ) -> GridFiles:
        """Return the files that a command was given.

        Args:
            setting: what the files should hold.
            card: the base model's card.
            base: the base's safetensors file.
            tasks: the tasks, in the order of the lists.
            *lists: images, splits, heads, experts and vectors, one file per task.
        """
        files = (TaskFiles(*map(Path, found)) for found in zip(*lists, strict=True))
        return cls(setting, Path(card), Path(base), dict(zip(tasks, files, strict=True)))

    @cached_property
    def card(self) -> ModelCard:
        """The base model's card."""
        return ModelCard.from_json(read_json(self.card_file))

    @property
    def vector_count(self) -> int:
        """How many tasks have a vector."""
        return sum(files.vector is not None for files in self.tasks.values())

    def base(self) -> State:
        """Return theta_0."""
        return _state(self.base_file, self.setting.base, "the base")

    def expert(self, task: str) -> State:
        """Return theta_t."""
        path = self.tasks[task].expert
        if path is None:
            raise LineageError(
                f"the outcomes of the expert of task {task!r} are not in the store; run the reference "
                "rule of its model, mode and seed again"
            )
        return _state(path, self.setting.task(task).expert, f"the expert of task {task!r}")

    def vector(self, task: str) -> State:
        """Return tau_t."""
        path = self.tasks[task].vector
        if path is None:
            raise LineageError(f"task {task!r} has no task vector; run the taskvector rule first")
        return _state(path, self.setting.task(task).vector, f"the vector of task {task!r}")

    def head(self, task: str) -> Head:
        """Return a task's head."""
        from taskgrid.models.heads import Head, check_head

        head = Head.load(self.tasks[task].head)
        check_head(head, self.card)
        _check(head.lineage["digest"], self.setting.task(task).head, f"the head of task {task!r}")
        return head

    def images(self, task: str, split: Split) -> LabelledImages:
        """Return the images of a split."""
        store, manifest = self._opened(task)
        ids = manifest.ids(split)
        _check(
            digest(list(ids)),
            self.setting.task(task).parts[split].ids,
            f"the {split} split of task {task!r}",
        )
        rows = store.rows(ids)
        return LabelledImages(store.pixels, rows, store.labels[rows])

    def _opened(self, task: str) -> tuple[ImageStore, SplitManifest]:
        from taskgrid.data.manifest import SplitManifest

        if task not in self._open:
            files = self.tasks[task]
            store, manifest = ImageStore.open(files.images), SplitManifest.read(files.split)
            _check(store.index.content_digest(), manifest.dataset, f"the images of task {task!r}")
            self._open[task] = (store, manifest)
        return self._open[task]

    @cached_property
    def _open(self) -> dict[str, tuple[ImageStore, SplitManifest]]:
        return {}


def _state(path: Path, digest: str | None, what: str) -> State:
    from taskgrid.store.weights import load_state

    state, lineage = load_state(path)
    _check(lineage["digest"], digest, what)
    return state


def _check(found: str, wanted: str | None, what: str) -> None:
    if found != wanted:
        raise LineageError(
            f"{what} changed after the plan was made (digest {found}, planned {wanted}); "
            "run the workflow again, it plans anew"
        )
