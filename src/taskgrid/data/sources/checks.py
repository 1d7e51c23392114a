"""What sources check alike: that the path is there, that labels and ids are what they must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import DataError
from taskgrid.store.images import Split

ACCEPT_MISSING = "add images, or accept it by `allow_missing_classes: true` on the task"
"""What to do about a class without images in val or test."""


def required_path(task: TaskData) -> Path:
    """Return a task's path.

    Raises:
        DataError: if the task has none, or nothing lies there.
    """
    if task.path is None:
        raise DataError(f"the source {task.source!r} needs a path")
    path = Path(task.path).expanduser()
    if not path.exists():
        raise DataError(
            f"{path} does not exist (looked from {Path.cwd()}); "
            "correct `path`, or put the data there"
        )
    return path


def no_train_split(path: str | Path, found: str, expected: str) -> str:
    """Return the sentence that says a source lacks training images."""
    return f"{path} has no train split: {found}; {expected}"


def check_labels(split: Split, labels: Sequence[int], classes: int) -> None:
    """Refuse labels that name no class.

    Raises:
        DataError: with the first such label.
    """
    for row, label in enumerate(labels):
        if not 0 <= label < classes:
            hint = " (Hugging Face marks hidden test labels by -1)" if label == -1 else ""
            raise DataError(
                f"image {row} of {split} has label {label}, but there are "
                f"{classes} classes, so labels run from 0 to {classes - 1}{hint}"
            )


def check_presence(
    task: TaskData, labels: Mapping[Split, Iterable[int]], classes: Sequence[str]
) -> None:
    """Refuse classes without an image: in train always, elsewhere unless the task accepts it.

    Raises:
        DataError: with the first such class.
    """
    for split, found in labels.items():
        if split != "train" and task.allow_missing_classes:
            continue
        present = frozenset(found)
        missing = [name for label, name in enumerate(classes) if label not in present]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            way = (
                "add images, or take it out of the classes" if split == "train" else ACCEPT_MISSING
            )
            raise DataError(f"the class {missing[0]!r}{more} has no image in {split}; {way}")


def check_unique(split: Split, ids: Iterable[str]) -> None:
    """Refuse two images of one name.

    Raises:
        DataError: with the first name that stands twice.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"the id {name!r} stands twice in {split}; ids must be unique")
        seen.add(name)


def numbered_id(split: Split, row: int) -> str:
    """Return the id of an image that has no name of its own."""
    return f"{split}/{row:07d}"
