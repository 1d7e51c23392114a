"""STL-10, binary: planes of colour in columns; labels begin at 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taskgrid.data.published.layouts.files import damaged, existing, find_folder, numbered
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Pixels, Split

_SHAPE = (3, 96, 96)
_SIZE = 3 * 96 * 96


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    return {split: _read(folder, split) for split in splits}


def _read(folder: Path, split: Split) -> Part:
    path = existing(folder / f"{split}_X.bin")
    labels = np.fromfile(existing(folder / f"{split}_y.bin"), np.uint8).astype(np.int64) - 1
    length = path.stat().st_size
    if length != len(labels) * _SIZE:
        raise damaged(path, f"{length} bytes for {len(labels)} labels of {_SIZE} bytes each")

    def load(row: int) -> Pixels:
        image = np.fromfile(path, np.uint8, _SIZE, offset=row * _SIZE)
        return image.reshape(_SHAPE).transpose(2, 1, 0)

    return numbered(split, labels.tolist(), load)
