"""What readers of original files share: finding, reading and listing files."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from taskgrid.data.decode import decode_image
from taskgrid.data.published.layouts.parts import Part
from taskgrid.data.sources.checks import numbered_id
from taskgrid.errors import DataError
from taskgrid.store.images import Pixels, Split

_ALWAYS = 64 << 20
_MOST_INFLATION = 100
"""Elements for each byte of a file: images in MATLAB files are hardly packed at all."""


def find_folder(root: Path, name: str, *, itself: bool = True) -> Path:
    """Return the folder ``name`` below ``root``, or below what a person took for ``root``.

    People point at ``data/eurosat`` as well as at ``data/eurosat/eurosat/2750``.

    Args:
        root: the folder that was given.
        name: the path that is described.
        itself: whether ``root`` may be that folder.
    """
    parts = PurePosixPath(name).parts
    tails = [parts[start:] for start in range(len(parts) + itself)]
    places = [root.joinpath(*tail) for tail in tails]
    return next((place for place in places if place.is_dir()), places[0])


def existing(path: Path) -> Path:
    """Return a path.

    Raises:
        DataError: if there is nothing.
    """
    if not path.exists():
        raise missing(path)
    return path


def missing(path: Path, more: int = 0) -> DataError:
    """Return the sentence that says that a file is missing."""
    others = f" (and {more} more)" if more else ""
    return DataError(
        f"{path} is missing{others}; docs/datasets.md says which files the data set consists of and "
        "where they go"
    )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without those that are empty.

    Raises:
        DataError: if it is missing or no text.
    """
    try:
        text = existing(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def names_in(folder: Path) -> list[str]:
    """Return the names of what lies in a folder, sorted; without what is hidden."""
    return sorted(child.name for child in folder.iterdir() if not child.name.startswith("."))


def image_files(base: Path, ids: Sequence[str], labels: Sequence[str] | Sequence[int]) -> Part:
    """Return images that are files below ``base``, named by their paths.

    Raises:
        DataError: if one of the files is missing.
    """
    listings: dict[str, set[str]] = {}
    lost = [name for name in ids if not _present(base, name, listings)]
    if lost:
        raise missing(base / lost[0], len(lost) - 1)

    def load(row: int) -> Pixels:
        path = base / ids[row]
        return decode_image(path, str(path))

    return Part(ids, labels, load)


def numbered(split: Split, labels: Sequence[int], load: Callable[[int], Pixels]) -> Part:
    """Return images that have numbers and no names."""
    return Part([numbered_id(split, row) for row in range(len(labels))], labels, load)


def grey(image: npt.NDArray[np.uint8]) -> Pixels:
    """Return a grey image (``H x W``) as RGB."""
    return np.broadcast_to(image[:, :, None], (*image.shape, 3))


def sorted_by_class(names: Iterable[str]) -> list[str]:
    """Sort paths ``<class>/.../<file>`` as ``ImageFolder`` lists them."""
    return sorted(names, key=lambda name: PurePosixPath(name).parts)


def load_mat(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Read variables of a MATLAB file.

    Raises:
        DataError: if it is missing or damaged.
    """
    # Imported here: it takes a while, and few layouts need it.
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        room = max(_ALWAYS, _MOST_INFLATION * existing(path).stat().st_size)
        for name, shape, _ in whosmat(str(path)):
            if math.prod(shape) > room:
                raise ValueError(f"{name} is said to be of shape {shape}")
        variables: dict[str, Any] = loadmat(
            str(existing(path)), squeeze_me=True, variable_names=names
        )
    except (
        *(MatReadError, OSError, ValueError, TypeError, EOFError, KeyError, OverflowError),
        *(NotImplementedError, IndexError, MemoryError, zlib.error, struct.error),
    ) as error:
        raise damaged(path, error) from error
    for name in names or ():
        if name not in variables:
            raise damaged(path, f"it has no variable {name!r}")
    return variables


def damaged(path: Path, reason: object) -> DataError:
    """Return the sentence that says that a file is damaged."""
    return DataError(f"{path} is damaged ({reason}); download it again")


def _present(base: Path, name: str, listings: dict[str, set[str]]) -> bool:
    # One listing per folder instead of one question per file: some data sets have a million.
    folder, _, file = name.rpartition("/")
    if folder not in listings:
        place = base / folder
        listings[folder] = set(names_in(place)) if place.is_dir() else set()
    return file in listings[folder]
