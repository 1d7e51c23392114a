"""Material from the workflow's files, compared with what the plan was made with as it is loaded.

torch is imported when the first file is read: a block whose rows are all known reads none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from taskgrid.data.manifest import SplitManifest
from taskgrid.errors import LineageError
from taskgrid.evaluation.engine.material import LabelledImages, Material, TaskMaterial
from taskgrid.evaluation.plan.setting import Setting, Split
from taskgrid.models.card import ModelCard
from taskgrid.provenance.digests import digest, digest_file
from taskgrid.store.atomic import read_json
from taskgrid.store.images import ImageStore

if TYPE_CHECKING:
    from taskgrid.merging.seam import Learned
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
        statistics: label -> a statistic's safetensors file.
    """

    images: Path
    split: Path
    head: Path
    expert: Path | None = None
    vector: Path | None = None
    statistics: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class GridFiles:
    """The files of a block.

    Attributes:
        card: the base model's card.
        base: the base's safetensors file.
        tasks: the files of each task.
        statistics: label -> file of a statistic of the base.
        learned: name of a subset -> ``coefficients.json`` of what was learned for it.
    """

    card: Path
    base: Path
    tasks: Mapping[str, TaskFiles]
    statistics: Mapping[str, Path] = field(default_factory=dict)
    learned: Mapping[str, Path] = field(default_factory=dict)


def open_files(files: GridFiles, setting: Setting, learned: Mapping[str, str]) -> Material:
    """Return the material of some files; each is read when it is called for.

    Every piece raises ArtifactError when its file is missing or damaged, and LineageError when it is not
    what the plan was made with.

    Args:
        files: the files.
        setting: what they should hold.
        learned: digests of what was learned, by the name of the subset.
    """
    card = ModelCard.from_json(read_json(files.card))
    there = [name for name in files.tasks if name in setting.tasks]
    return Material(
        card=card,
        base=partial(_state, files.base, setting.base, "the base"),
        # A plan needs no more than its own tasks of those that there are.
        tasks={name: _task(name, files.tasks[name], setting, card) for name in there},
        statistics={
            label: partial(_state, path, setting.statistics.get(label), f"the statistic {label!r}")
            for label, path in files.statistics.items()
        },
        learned={
            name: partial(_learned, path, learned.get(name), name)
            for name, path in files.learned.items()
        },
    )


def _task(name: str, files: TaskFiles, setting: Setting, card: ModelCard) -> TaskMaterial:
    ref = setting.task(name)
    opened = cache(partial(_open, files, name))
    return TaskMaterial(
        head=partial(_head, files.head, card, ref.head, name),
        images=partial(_images, opened, setting, name),
        expert=_maybe(files.expert, ref.expert, f"the expert of task {name!r}"),
        vector=_maybe(files.vector, ref.vector, f"the vector of task {name!r}"),
        statistics={
            label: partial(
                _state, path, ref.statistics.get(label), f"the statistic {label!r} of task {name!r}"
            )
            for label, path in files.statistics.items()
        },
    )


def _maybe(path: Path | None, wanted: str | None, what: str) -> Callable[[], State] | None:
    return partial(_state, path, wanted, what) if path is not None else None


def _head(path: Path, card: ModelCard, wanted: str, task: str) -> Head:
    from taskgrid.models.heads import Head, check_head

    head = Head.load(path)
    check_head(head, card)
    _check(head.lineage["digest"], wanted, f"the head of task {task!r}")
    return head


Opened = tuple[ImageStore, SplitManifest]


def _images(
    opened: Callable[[], Opened], setting: Setting, task: str, split: Split
) -> LabelledImages:
    store, manifest = opened()
    ids = manifest.ids(split)
    wanted = setting.task(task).parts[split].ids
    _check(digest(list(ids)), wanted, f"the {split} split of task {task!r}")
    rows = store.rows(ids)
    return LabelledImages(store.pixels, rows, store.labels[rows])


def _open(files: TaskFiles, task: str) -> Opened:
    store, manifest = ImageStore.open(files.images), SplitManifest.read(files.split)
    _check(store.index.content_digest(), manifest.dataset, f"the images of task {task!r}")
    return store, manifest


def _learned(path: Path, wanted: str | None, subset: str) -> Learned:
    _check(digest_file(path), wanted, f"what was learned for {subset}")
    return load_learned(path)


def load_learned(path: Path) -> Learned:
    """Return what was learned for a subset; ``references.read_learned`` says whether it belongs here.

    Args:
        path: its ``coefficients.json``, with ``tensors.safetensors`` beside it.

    Raises:
        ArtifactError: if a file is missing or damaged.
        LineageError: if the tensors are not those that were learned with the coefficients.
    """
    import torch

    value, beside = read_json(path), path.with_name("tensors.safetensors")
    found = value["coefficients"]
    coefficients = {task: torch.tensor(one, dtype=torch.float64) for task, one in found.items()}
    return {**coefficients, **_state(beside, value["tensors"], f"what was learned in {beside}")}


def _state(path: Path, wanted: str | None, what: str) -> State:
    from taskgrid.store.weights import load_state

    state, lineage = load_state(path)
    _check(lineage["digest"], wanted, what)
    return state


def _check(found: str, wanted: str | None, what: str) -> None:
    if found != wanted:
        raise LineageError(
            f"{what} changed after the plan was made (digest {found}, planned {wanted}); "
            "run the workflow again, it plans anew"
        )
