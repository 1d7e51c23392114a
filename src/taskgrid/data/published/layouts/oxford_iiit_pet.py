"""Oxford-IIIT Pet: images in one folder, named after their class; lists of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taskgrid.data.published.layouts.files import find_folder, image_files, read_lines
from taskgrid.data.published.layouts.parts import LayoutSettings, Parts
from taskgrid.store.images import Split

_LISTS: dict[Split, str] = {"train": "trainval", "test": "test"}


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    parts = {}
    for split in splits:
        lines = read_lines(folder / "annotations" / f"{_LISTS[split]}.txt")
        names = [line.split()[0] for line in lines if not line.startswith("#")]
        ids = [f"images/{name}.jpg" for name in names]
        parts[split] = image_files(folder, ids, [name.rpartition("_")[0] for name in names])
    return parts
