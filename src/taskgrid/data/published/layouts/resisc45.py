"""RESISC45: images in class folders or together, and lists of file names (``airplane_001.jpg``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taskgrid.data.published.layouts.files import (
    find_folder,
    image_files,
    missing,
    read_lines,
    sorted_by_class,
)
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Split

_IMAGES = ("NWPU-RESISC45", "images", ".")


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    return {split: _read(folder, split) for split in splits}


def _read(folder: Path, split: Split) -> Part:
    names = [Path(line).name for line in read_lines(folder / f"resisc45-{split}.txt")]
    if not names:
        raise missing(folder / "an image of the list")
    # Sorted as in class folders: the lists themselves are shuffled.
    files = sorted_by_class(f"{name.rpartition('_')[0]}/{name}" for name in names)
    classes = [name.split("/")[0] for name in files]
    for place in _IMAGES:
        for ids in (files, [name.split("/")[1] for name in files]):
            if (folder / place / ids[0]).is_file():
                return image_files(folder / place, ids, classes)
    raise missing(folder / _IMAGES[0] / files[0])
