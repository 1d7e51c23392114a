"""SVHN, cropped digits: ``train_32x32.mat``, ``test_32x32.mat``; the digit 0 has label 10 there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taskgrid.data.published.layouts.files import damaged, find_folder, load_mat, numbered
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Pixels, Split

_TEN = 10


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    return {split: _read(folder / f"{split}_32x32.mat", split) for split in splits}


def _read(path: Path, split: Split) -> Part:
    labels = np.atleast_1d(load_mat(path, ["y"])["y"]).astype(np.int64)
    images = _Images(path, len(labels))
    return numbered(split, np.where(labels == _TEN, 0, labels).tolist(), images.load)


class _Images:
    """The images of a file, read when the first one is asked for."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._array: npt.NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def load(self, row: int) -> Pixels:
        with self._lock:
            if self._array is None:
                self._array = self._read()
        return self._array[:, :, :, row]

    def _read(self) -> npt.NDArray[np.uint8]:
        array: npt.NDArray[np.uint8] = load_mat(self._path, ["X"])["X"]
        array = array[..., None] if array.ndim == 3 else array
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != self._count:
            raise damaged(
                self._path, f"X is {array.dtype} of shape {array.shape} for {self._count} labels"
            )
        return array
