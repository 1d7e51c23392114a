"""SUN397: ``a/abbey/*.jpg``, and ten divisions (``Training_01.txt``, ``Testing_01.txt``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taskgrid.data.published.layouts.files import (
    damaged,
    find_folder,
    image_files,
    read_lines,
    sorted_by_class,
)
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Split

_LISTS: dict[Split, str] = {"train": "Training", "test": "Testing"}


class Settings(LayoutSettings):
    """Settings of the reader.

    Attributes:
        partition: which of the ten divisions.
    """

    partition: str = "01"


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    return {
        split: _read(folder, folder / f"{_LISTS[split]}_{settings.partition}.txt")
        for split in splits
    }


def _read(folder: Path, file: Path) -> Part:
    lines = [line.removeprefix("/") for line in read_lines(file)]
    for line in lines:
        # a/abbey/x.jpg, a/apartment_building/outdoor/x.jpg
        if line.count("/") not in (2, 3):
            raise damaged(file, f"{line!r} is no path of an image")
    # The papers copied images into folders a_abbey, a_apartment_building_outdoor, hence the order.
    flat = {
        f"{line.rpartition('/')[0].replace('/', '_')}/{line.rpartition('/')[2]}": line
        for line in lines
    }
    ids = [flat[name] for name in sorted_by_class(flat)]
    return image_files(folder, ids, [name.split("/", 1)[1].rpartition("/")[0] for name in ids])
