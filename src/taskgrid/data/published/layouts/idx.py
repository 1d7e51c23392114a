"""IDX files, compressed or not: MNIST, Fashion-MNIST, KMNIST, EMNIST.

**The orientation of EMNIST.** Its files hold every character transposed (mirrored at the main
diagonal), unlike MNIST's. torchvision hands them out as they are, and so did the code of the papers
with 14 and 20 tasks (TALL-masks trains and tests on ``torchvision.datasets.EMNIST`` without turning
anything). Images are therefore left as they are stored; ``upright: true`` turns them.
"""

from __future__ import annotations

import gzip
import math
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from taskgrid.data.published.layouts.files import damaged, find_folder, grey, missing, numbered
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.errors import DataError
from taskgrid.store.images import Pixels, Split

_DAMAGE = (OSError, EOFError, ValueError, MemoryError, zlib.error)
_UINT8 = 0x08
_MOST_INFLATION = 1100
"""zlib packs at most some 1,032 bytes into one."""

_PLACES = (".", "raw", "gzip", "raw/gzip")


class Settings(LayoutSettings):
    """Settings of the reader.

    Attributes:
        images: file of the images of each split, without ``.gz``.
        labels: file of their labels.
        first_label: number of the first class.
        upright: whether rows and columns are exchanged.
    """

    images: dict[Split, str]
    labels: dict[Split, str]
    first_label: int = 0
    upright: bool = False


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    return {split: _read(folder, settings, split) for split in splits}


def _read(folder: Path, settings: Settings, split: Split) -> Part:
    images = _Idx(_find(folder, settings.images[split]))
    file = _Idx(_find(folder, settings.labels[split]))
    if len(images.shape) != 3 or len(file.shape) != 1:
        raise damaged(images.path, f"it has shape {images.shape}, its labels {file.shape}")
    if images.shape[0] != file.shape[0]:
        raise DataError(
            f"{images.path} has {images.shape[0]} images, but {file.path} has {file.shape[0]} labels"
        )
    labels = (file.array.astype(np.int64) - settings.first_label).tolist()

    def load(row: int) -> Pixels:
        image = images.array[row]
        return grey(image.T if settings.upright else image)

    return numbered(split, labels, load)


def _find(folder: Path, name: str) -> Path:
    places = [folder / place / f"{name}{suffix}" for suffix in ("", ".gz") for place in _PLACES]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise missing(folder / name)
    return found


class _Idx:
    """An array in a file; its numbers are read when they are first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array: npt.NDArray[np.uint8] | None = None
        self._lock = threading.Lock()
        try:
            with self._open() as stream:
                self.shape = _header(stream)
            size = path.stat().st_size
            if math.prod(self.shape) > _MOST_INFLATION * size:
                raise ValueError(f"it is said to be of shape {self.shape}, in {size} bytes")
        except _DAMAGE as error:
            raise damaged(path, error) from error

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The numbers.

        Raises:
            DataError: if the file is truncated or damaged.
        """
        with self._lock:
            if self._array is None:
                self._array = self._read()
            return self._array

    def _read(self) -> npt.NDArray[np.uint8]:
        try:
            with self._open() as stream:
                shape = _header(stream)
                # One more, so that a longer file shows.
                data = stream.read(math.prod(shape) + 1)
            return np.frombuffer(data, np.uint8).reshape(shape)
        except _DAMAGE as error:
            raise damaged(self.path, error) from error

    def _open(self) -> IO[bytes]:
        if self.path.suffix == ".gz":
            return cast(IO[bytes], gzip.GzipFile(self.path))
        return self.path.open("rb")


def _header(stream: IO[bytes]) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) != 4 or magic[:2] != b"\0\0" or magic[2] != _UINT8:
        raise ValueError("it is no IDX file of bytes")
    sizes = np.frombuffer(stream.read(4 * magic[3]), ">u4")
    if len(sizes) != magic[3]:
        raise EOFError("it ends in its header")
    return tuple(int(size) for size in sizes)
