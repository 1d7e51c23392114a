"""Image folders: ``<path>/train/<class>/*``, maybe ``test``, ``val``; or just ``<path>/<class>/*``.

Classes are the sorted names of the class folders, and the images of a class are taken in
torchvision's ``ImageFolder`` order, so that the papers' permutation cuts the same validation split.
An image's id is its path below ``<path>``. Hidden files and files without an image suffix are
ignored; a class folder may have folders of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from taskgrid.data.classnames import resolve_classes, resolve_templates
from taskgrid.data.decode import IMAGE_SUFFIXES, decode_image
from taskgrid.data.sources.checks import no_train_split, required_path
from taskgrid.data.sources.options import SourceOptions, parse_options
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.errors import DataError, SplitError
from taskgrid.store.images import SPLITS, Split

_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}


class FolderOptions(SourceOptions):
    """Options of the source ``folder``.

    Attributes:
        folders: which folder below ``path`` is which split, where they are not called ``train``,
            ``val`` and ``test`` (some data sets call their test images ``val``).
    """

    folders: dict[Split, str] | None = None


class FolderSource(Source):
    """Images in class folders."""

    def __init__(self, task: TaskData, root: Path, folders: Mapping[Split, Path]) -> None:
        """Scan the folders of a task's splits below ``root``.

        Raises:
            DataError: if a class folder is empty, or the splits have different classes.
        """
        self._root = root
        self._folders = folders
        names = [folder.name for folder in _visible_folders(folders["train"])]
        self.classes = resolve_classes(task, own=names, beside=root / "classes.json")
        self.templates = resolve_templates(task)
        self._files: dict[Split, list[tuple[Path, int]]] = {
            split: _scan(folder, names) for split, folder in folders.items()
        }

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that have a folder."""
        return tuple(split for split in SPLITS if split in self._folders)

    def count(self, split: Split) -> int:
        """Return the number of images in a split's folder."""
        return len(self._files[split])

    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the images of a split, class by class."""
        for path, label in self._files[split]:
            name = path.relative_to(self._root).as_posix()
            yield Entry(name, label, partial(decode_image, path, str(path)))


def open_task(task: TaskData) -> FolderSource:
    """Open a task's image folders.

    Raises:
        DataError: if the path is missing, a class folder is empty, or the splits have different
            classes.
        SplitError: if there is no folder of training images.
    """
    root = required_path(task)
    if not root.is_dir():
        raise DataError(f"{root} is a file, but the source 'folder' needs a folder")
    return FolderSource(task, root, _split_folders(task, root))


def _split_folders(task: TaskData, root: Path) -> dict[Split, Path]:
    options = parse_options(task, FolderOptions)
    if options.folders is not None:
        return _named_folders(root, options.folders)
    children = {folder.name: folder for folder in _visible_folders(root)}
    found: dict[Split, Path] = {}
    for split in SPLITS:
        present = [
            name for name in _NAMES[split] if name in children and _holds_folders(children[name])
        ]
        if len(present) > 1:
            raise DataError(
                f"{root} has the folders {' and '.join(present)}, which all mean {split}; say "
                "which one counts in options.folders"
            )
        if present:
            found[split] = children[present[0]]
    expected = "expected train/<class>/*, or <class>/* alone (options.folders can say otherwise)"
    if not children:
        raise SplitError(no_train_split(root, "it has no class folders", expected))
    split_names = {name for names in _NAMES.values() for name in names}
    if (found and "train" not in found) or (not found and set(children) <= split_names):
        raise SplitError(
            no_train_split(root, f"it has the folders {', '.join(children)}", expected)
        )
    return found or {"train": root}


def _named_folders(root: Path, names: Mapping[Split, str]) -> dict[Split, Path]:
    if "train" not in names:
        raise SplitError(
            no_train_split(root, "options.folders names none", "name its `train` folder")
        )
    for name in names.values():
        if not (root / name).is_dir():
            raise DataError(f"options.folders names {root / name}, which is no folder")
    return {split: root / names[split] for split in SPLITS if split in names}


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(
        (child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")),
        key=lambda child: child.name,
    )


def _holds_folders(folder: Path) -> bool:
    return bool(_visible_folders(folder))


def _scan(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    present = [child.name for child in _visible_folders(folder)]
    if present != classes:
        missing = ", ".join(sorted(set(classes) - set(present)))
        extra = ", ".join(sorted(set(present) - set(classes)))
        differences = [f"lacks {missing}"] if missing else []
        differences += [f"has {extra} beside them"] if extra else []
        raise DataError(
            f"{folder} must have the {len(classes)} class folders of the training "
            f"images, but {' and '.join(differences)}"
        )
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        found = list(_images(folder / name))
        if not found:
            raise DataError(
                f"the class folder {folder / name} has no images "
                f"({', '.join(IMAGE_SUFFIXES)}); fill it or remove it"
            )
        files.extend((path, label) for path in found)
    return files


def _images(folder: Path) -> Iterator[Path]:
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        for name in sorted(names):
            path = Path(place, name)
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if not _is_text(name):
                raise DataError(f"the name of {str(path)!r} is not UTF-8; rename it")
            yield path


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
