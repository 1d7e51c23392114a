"""The binary version of CIFAR-10 and CIFAR-100: records of label bytes and planes of colour.

The Python version of the same images is a pickle, and a pickle can run anything; it is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taskgrid.data.published.layouts.files import damaged, existing, find_folder, numbered
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Pixels, Split

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


class Settings(LayoutSettings):
    """Settings of the reader.

    Attributes:
        train: files of the training images, in order.
        test: files of the test images.
        label_bytes: label bytes of a record; the last one counts (of CIFAR-100's two, the fine one).
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int = 1


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    files = {"train": settings.train, "test": settings.test}
    return {
        split: _read([folder / name for name in files[split]], settings.label_bytes, split)
        for split in splits
    }


def _read(paths: Sequence[Path], label_bytes: int, split: Split) -> Part:
    size = label_bytes + _PIXELS
    for path in paths:
        length = existing(path).stat().st_size
        if length % size:
            raise damaged(path, f"{length} bytes are no whole number of images of {size} bytes")
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, size) for path in paths])

    def load(row: int) -> Pixels:
        return records[row, label_bytes:].reshape(_SHAPE).transpose(1, 2, 0)

    return numbered(split, records[:, label_bytes - 1].tolist(), load)
