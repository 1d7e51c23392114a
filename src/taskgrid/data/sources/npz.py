"""NumPy archives: ``train_images``, ``train_labels``, optional ``train_ids``; so for other splits.

Images are uint8, grey (``N x H x W``) or RGB (``N x H x W x 3``). Class names are looked for in
``classes.json`` beside the archive. The images are read as a stream: the array is never in memory
as a whole. Nothing is unpickled.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from taskgrid.data.classnames import resolve_classes, resolve_templates
from taskgrid.data.decode import check_size
from taskgrid.data.sources.checks import (
    check_labels,
    check_presence,
    check_unique,
    no_train_split,
    numbered_id,
    required_path,
)
from taskgrid.data.sources.options import SourceOptions, parse_options
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.data.sources.split_names import meaning
from taskgrid.errors import DataError, SplitError
from taskgrid.store.images import SPLITS, Pixels, Split

_CHUNK_BYTES = 1 << 22
_MOST_INFLATION = 1100
"""zlib packs at most some 1,032 bytes into one."""

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError),
    *(
        NotImplementedError,
        KeyError,
        TypeError,
        SyntaxError,
        RuntimeError,
        OverflowError,
        MemoryError,
    ),
)


class NpzOptions(SourceOptions):
    """Options of the source ``npz``: names of the arrays, ``{split}`` being train, val or test."""

    images: str = "{split}_images"
    """Name of the arrays of images, `{split}` being `train`, `val` or `test`."""
    labels: str = "{split}_labels"
    """Name of the arrays of labels."""
    ids: str = "{split}_ids"
    """Name of the arrays of unique names, text or whole numbers; without them images are numbered."""


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


@dataclass(frozen=True)
class _Part:
    array: str
    image_shape: tuple[int, ...]
    labels: list[int]
    ids: list[str]


class NpzSource(Source):
    """Images in a NumPy archive."""

    def __init__(self, task: TaskData, path: Path) -> None:
        """Read the labels and ids of an archive, and the headers of its images.

        Raises:
            DataError: if the archive is damaged or its arrays do not fit together.
            SplitError: if it has no training images.
        """
        self._archive = _Archive(path)
        options = parse_options(task, NpzOptions)
        self._parts: dict[Split, _Part] = {}
        _check_names(self._archive, options)
        for split in SPLITS:
            if options.images.replace("{split}", split) in self._archive.names:
                self._parts[split] = self._part(options, split)
        if "train" not in self._parts:
            raise SplitError(
                no_train_split(
                    path,
                    f"it holds {', '.join(self._archive.names) or 'nothing'}",
                    f"expected {options.images.replace('{split}', 'train')} "
                    "(options.images says otherwise)",
                )
            )
        implied = 1 + max(max(part.labels) for part in self._parts.values())
        self.classes = resolve_classes(task, labels=implied, beside=path.parent / "classes.json")
        self.templates = resolve_templates(task)
        used = {
            text.replace("{split}", split)
            for text in options.model_dump().values()
            for split in self._parts
        }
        if left := [name for name in self._archive.names if name not in used]:
            self.notes = (f"left out: {', '.join(left[:5])}{', ...' * (len(left) > 5)}",)
        for split, part in self._parts.items():
            check_labels(split, part.labels, len(self.classes))
        check_presence(
            task, {split: part.labels for split, part in self._parts.items()}, self.classes
        )

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that have arrays."""
        return tuple(self._parts)

    def count(self, split: Split) -> int:
        """Return the number of images of a split."""
        return len(self._parts[split].labels)

    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the images of a split in the array's order."""
        part = self._parts[split]
        images = self._archive.rows(part.array, part.image_shape)
        for name, label, image in zip(part.ids, part.labels, images, strict=True):
            yield Entry(name, label, _Rgb(image))

    def _part(self, options: NpzOptions, split: Split) -> _Part:
        images, labels, ids = (
            text.replace("{split}", split) for text in (options.images, options.labels, options.ids)
        )
        header = self._archive.header(images)
        where = f"{images} in {self._archive.path}"
        if header.dtype != np.uint8:
            raise DataError(f"{where} is {header.dtype}, but images must be uint8 (0 to 255)")
        shape = header.shape
        if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))) or 0 in shape[1:]:
            raise DataError(f"{where} has shape {shape}; expected N x H x W or N x H x W x 3")
        if shape[0] == 0:
            raise DataError(f"{where} has no images")
        check_size(where, *shape[1:3])
        if shape[0] > (size := self._archive.path.stat().st_size):
            raise DataError(f"{where} says that it has {shape[0]} images, in {size} bytes")
        if header.fortran:
            raise DataError(f"{where} is in Fortran order; save np.ascontiguousarray of it")
        return _Part(
            images,
            shape[1:],
            self._labels(labels, shape[0], images),
            self._ids(ids, shape[0], images, split),
        )

    def _labels(self, array: str, count: int, images: str) -> list[int]:
        where = f"{array} in {self._archive.path}"
        shape = self._archive.header(array).shape
        if shape not in ((count,), (count, 1)):
            raise DataError(f"{where} has shape {shape}, but {images} has {count} images")
        values = self._archive.array(array)
        if values.dtype.kind not in "iu":
            raise DataError(f"{where} is {values.dtype}, but labels must be whole numbers")
        labels: list[int] = values.reshape(-1).tolist()
        return labels

    def _ids(self, array: str, count: int, images: str, split: Split) -> list[str]:
        if array not in self._archive.names:
            return [numbered_id(split, row) for row in range(count)]
        where = f"{array} in {self._archive.path}"
        shape = self._archive.header(array).shape
        if shape != (count,):
            raise DataError(f"{where} has shape {shape}, but {images} has {count} images")
        values = self._archive.array(array)
        if values.dtype.kind not in "iuU":
            raise DataError(f"{where} is {values.dtype}, but ids must be text or whole numbers")
        ids = list(map(str, values.tolist()))
        check_unique(split, ids)
        return ids


def _check_names(archive: _Archive, options: NpzOptions) -> None:
    """Refuse arrays of a split by another name than `train`, `val` and `test`: they would be left out."""
    for option, text in options.model_dump().items():
        if "{split}" not in text:
            raise DataError(
                f"options.{option} is {text!r}, but needs {{split}} where the split stands"
            )
    before, _, after = options.images.partition("{split}")
    for name in archive.names:
        middle = name.removeprefix(before).removesuffix(after)
        split = meaning(middle)
        usual = options.images.replace("{split}", split or "")
        if name == f"{before}{middle}{after}" and split and usual not in archive.names:
            raise DataError(
                f"{archive.path} holds {name!r}, which is no array of train, val or test by "
                f"options.images ({options.images!r}); rename it, for example to "
                f"{options.images.replace('{split}', 'test' if split == 'unclear' else split)!r}"
            )


def open_task(task: TaskData) -> NpzSource:
    """Open a task's archive.

    Raises:
        DataError: if the archive is missing, damaged, or its arrays do not fit together.
        SplitError: if it has no training images.
    """
    path = required_path(task)
    if not path.is_file():
        raise DataError(f"{path} is a folder; name the .npz file in it")
    return NpzSource(task, path)


@dataclass(frozen=True)
class _Rgb:
    image: Pixels

    def __call__(self) -> Pixels:
        shape = (*self.image.shape[:2], 3)
        grey = self.image if self.image.ndim == 3 else self.image[:, :, None]
        return np.broadcast_to(grey, shape)


class _Archive:
    """A zip of .npy members, read without unpickling and, for images, without loading them all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained("its table of contents"), zipfile.ZipFile(path) as archive:
            if len(set(archive.namelist())) != len(archive.namelist()):
                raise ValueError("a name stands twice in it")
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            self.names = list(members)
            self._bytes = {
                name: min(info.file_size, _MOST_INFLATION * info.compress_size)
                for name, info in members.items()
            }

    def header(self, array: str) -> _Header:
        """Read what an array is, and refuse one that the file cannot hold before room is made for it."""
        if array not in self.names:
            raise DataError(f"{self.path} has no array {array!r}; it holds {', '.join(self.names)}")
        with self._member(array) as stream:
            header = _read_header(stream)
            said = math.prod(header.shape) * header.dtype.itemsize
            there = self._bytes[array]
            if min(header.shape, default=0) < 0 or (said > there and not header.dtype.hasobject):
                raise ValueError(f"its header says {said} bytes, but {there} are there")
            return header

    def array(self, array: str) -> npt.NDArray[Any]:
        with self._member(array) as stream:
            values: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return values

    def rows(self, array: str, shape: tuple[int, ...]) -> Iterator[Pixels]:
        size = int(np.prod(shape))
        chunk = max(1, _CHUNK_BYTES // size)
        with self._member(array) as stream:
            left = _read_header(stream).shape[0]
            while left:
                count = min(chunk, left)
                data = stream.read(count * size)
                if len(data) != count * size:
                    raise EOFError(f"{left} images are missing at its end")
                left -= count
                yield from np.frombuffer(data, np.uint8).reshape(count, *shape)
            # Reading on makes zipfile compare the check sum.
            stream.read(1)

    @contextmanager
    def _member(self, array: str) -> Iterator[IO[bytes]]:
        with (
            self._explained(array),
            zipfile.ZipFile(self.path) as archive,
            archive.open(f"{array}.npy") as stream,
        ):
            yield stream

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise DataError(
                f"{self.path} is damaged or no .npz archive: {what} cannot be read ({error})"
            ) from error


def _read_header(stream: IO[bytes]) -> _Header:
    readers: dict[tuple[int, int], Callable[[IO[bytes]], tuple[Any, bool, np.dtype[Any]]]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"unknown version {version} of the .npy format")
    shape, fortran, dtype = readers[version](stream)
    return _Header(tuple(shape), dtype, fortran)
