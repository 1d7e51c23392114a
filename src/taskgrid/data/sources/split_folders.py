"""Which folder below a path holds which split, by its name or as `options.folders` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from taskgrid.data.classnames import plain
from taskgrid.data.decode import IMAGE_SUFFIXES
from taskgrid.data.sources.checks import no_train_split
from taskgrid.data.sources.listings import listed, visible, visible_folders
from taskgrid.data.sources.split_names import meaning, mentioned
from taskgrid.errors import DataError, SplitError
from taskgrid.provenance.walking import files_below
from taskgrid.store.images import SPLITS, Split

_EXPECTED = "expected train/<class>/*, or <class>/* alone (options.folders can say otherwise)"


def usual_folders(root: Path) -> dict[Split, Path]:
    """Return the folder of each split by its name; ``root`` itself, where none is called so.

    Raises:
        DataError: if a folder may be meant in two ways.
        SplitError: if there is no folder of training images.
    """
    children = visible_folders(root)
    if not children:
        raise SplitError(no_train_split(root, "it has no class folders", _EXPECTED))
    found: dict[Split, Path] = {}
    for split in SPLITS:
        present = [child for child in children if meaning(child.name) == split]
        present = [child for child in present if visible_folders(child)]
        if len(present) > 1:
            raise DataError(
                f"{root} has the folders {listed(present)}, which all mean {split}; say which one "
                "counts in options.folders"
            )
        if present:
            found[split] = present[0]
    _refuse_unclear(root, children, found)
    if "train" not in found and (found or all(meaning(child.name) for child in children)):
        raise SplitError(
            no_train_split(root, f"it has the folders {listed(children, ', ')}", _EXPECTED)
        )
    return found or {"train": root}


def _refuse_unclear(root: Path, children: Sequence[Path], found: Mapping[Split, Path]) -> None:
    for child in children:
        if child in found.values() or not any(files_below(child)):
            continue
        exact, spoken = meaning(child.name), mentioned(child.name)
        if "train" not in found and exact == "train":
            # Vehicles have a class of this name.
            continue
        if exact == "unclear":
            raise DataError(
                f"{child} may be validation or test images; say which in options.folders, for "
                f"example {{train: {_train_of(root, found)}, test: {child.name}}}"
            )
        if exact is not None and exact not in found:
            if not found and all(meaning(other.name) for other in children):
                continue
            ways = f"{{train: {_train_of(root, found)}}} leaves it out"
            if not found:
                ways = "{train: .} takes it for a class"
            raise DataError(
                f"{child} is called like {exact} images, but has no class folders; put its images "
                f"into class folders, or set options.folders: {ways}"
            )
        if spoken is not None and spoken not in found and visible_folders(child):
            raise DataError(
                f"{child} may be a split, because of its name, or a class; say which folder is which "
                "split in options.folders, for example {train: ..., test: ...}, or {train: .} where "
                "each folder is a class"
            )


def _train_of(root: Path, found: Mapping[Split, Path]) -> str:
    return found["train"].relative_to(root).as_posix() if "train" in found else "..."


def left_beside(root: Path, folders: Mapping[Split, Path]) -> tuple[str, ...]:
    """Say which folders and images beside those of the splits are left out."""
    left = [
        child
        for child in visible(root)
        if child not in folders.values()
        and (child.is_dir() or child.suffix.lower() in IMAGE_SUFFIXES)
    ]
    if not left:
        return ()
    return (f"left out beside {listed(list(folders.values()))}: {listed(left, ', ')}",)


def named_folders(root: Path, names: Mapping[Split, str]) -> dict[Split, Path]:
    """Return the folder of each split that is named.

    Raises:
        DataError: if one does not exist, lies elsewhere, or is named twice.
        SplitError: if there is no folder of training images.
    """
    if "train" not in names:
        raise SplitError(
            no_train_split(root, "options.folders names none", "name its `train` folder")
        )
    found: dict[Split, Path] = {}
    for split in SPLITS:
        if split not in names:
            continue
        place = PurePosixPath(names[split])
        if place.is_absolute() or ".." in place.parts:
            raise DataError(f"options.folders names {place}, which must be a folder below {root}")
        folder = root
        for part in place.parts:
            below = visible_folders(folder) if folder.is_dir() else []
            same = [child for child in below if plain(child.name) == plain(part)]
            exact = folder / part
            folder = exact if exact in same or not same else same[0]
        if not folder.is_dir():
            raise DataError(f"options.folders names {folder}, which is no folder")
        if folder in found.values():
            raise DataError(f"options.folders names {folder} for two splits; name one for each")
        found[split] = folder
    return found
