"""FER2013: one CSV file with an image in each row; ``Usage`` says which split it is of.

``fer2013.csv`` and ``icml_face_data.csv`` hold the same rows with columns of other names. Test is
PublicTest and PrivateTest together, as in the papers (and in torchvision).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taskgrid.data.published.layouts.files import damaged, existing, find_folder, grey, numbered
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Pixels, Split

_SIDE = 48
_FILES = ("fer2013.csv", "icml_face_data.csv")
_USAGES: dict[Split, tuple[str, ...]] = {
    "train": ("Training",),
    "test": ("PublicTest", "PrivateTest"),
}


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    path = found[0] if found else existing(folder / _FILES[0])
    labels: dict[Split, list[int]] = {split: [] for split in splits}
    images: dict[Split, list[npt.NDArray[np.uint8]]] = {split: [] for split in splits}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            # Some versions of the file have blanks before the names.
            for number, row in enumerate(csv.DictReader(stream, skipinitialspace=True)):
                for split in splits:
                    if row["Usage"] in _USAGES[split]:
                        labels[split].append(int(row["emotion"]))
                        images[split].append(_image(row["pixels"], number))
    except (KeyError, TypeError, ValueError, OverflowError, OSError, csv.Error) as error:
        raise damaged(path, error) from error
    return {split: _Images(images[split]).part(split, labels[split]) for split in splits}


def _image(text: str, number: int) -> npt.NDArray[np.uint8]:
    values = np.array(text.split(), np.uint8)
    if values.size != _SIDE * _SIDE:
        raise ValueError(f"row {number} has {values.size} pixels instead of {_SIDE * _SIDE}")
    return values.reshape(_SIDE, _SIDE)


class _Images:
    def __init__(self, images: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._images = images

    def part(self, split: Split, labels: Sequence[int]) -> Part:
        return numbered(split, labels, self._load)

    def _load(self, row: int) -> Pixels:
        return grey(self._images[row])
