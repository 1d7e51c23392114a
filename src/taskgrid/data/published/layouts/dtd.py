"""DTD: ``images/<class>/<file>`` and ten divisions into thirds; train is ``trainN`` and ``valN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taskgrid.data.published.layouts.files import (
    find_folder,
    image_files,
    read_lines,
    sorted_by_class,
)
from taskgrid.data.published.layouts.parts import LayoutSettings, Parts
from taskgrid.store.images import Split

_LISTS: dict[Split, tuple[str, ...]] = {"train": ("train", "val"), "test": ("test",)}


class Settings(LayoutSettings):
    """Settings of the reader.

    Attributes:
        partition: which of the ten divisions.
    """

    partition: int = 1


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`.

    The papers copied the files of both lists into class folders, hence the order.
    """
    folder = find_folder(root, settings.folder)
    parts = {}
    for split in splits:
        files = [folder / "labels" / f"{name}{settings.partition}.txt" for name in _LISTS[split]]
        names = sorted_by_class(line for file in files for line in read_lines(file))
        ids = [f"images/{name}" for name in names]
        parts[split] = image_files(folder, ids, [name.split("/")[0] for name in names])
    return parts
