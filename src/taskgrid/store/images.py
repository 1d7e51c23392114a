"""Decoded images on disk: one memory-mapped Arrow file per task.

The file is Arrow IPC (uncompressed) with one record batch, so the pixels of all images are one
contiguous uint8 array that is read in place: opening a store that was checked before costs nothing,
and a gather touches only the pages it needs. It is written as a stream; no more than one image is in memory.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taskgrid.errors import DataError
from taskgrid.provenance.digests import digest, digest_bytes
from taskgrid.store import seals
from taskgrid.store.atomic import sealed_path

Pixels = npt.NDArray[np.uint8]

Split = Literal["train", "val", "test"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
"""In this order the splits of a source are read and stored."""

_FORMAT = b"taskgrid.images/1"
_CHANNELS = 3


@dataclass(frozen=True)
class PixelRows:
    """Some rows of a pixel array, in an order of their own, read when asked for.

    Attributes:
        pixels: ``(M, S, S, 3)`` uint8; may be memory-mapped.
        rows: which of them, ``(N,)``.
    """

    pixels: Pixels
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | npt.NDArray[Any]) -> Pixels:
        return self.pixels[self.rows[index]]


def pixel_digest(pixels: Pixels) -> str:
    """Return the digest of an image's shape and bytes (``H x W x 3`` uint8, RGB)."""
    shape = "x".join(map(str, pixels.shape)).encode()
    return digest_bytes(shape + b":" + np.ascontiguousarray(pixels).tobytes())


@dataclass(frozen=True)
class PreparedImage:
    """One row of a store.

    Attributes:
        id: name of the image, unique within its task.
        label: class index.
        origin: the source's own split it came from (``train``, ``val`` or ``test``).
        digest: ``pixel_digest`` of the image as decoded, before resizing.
        pixels: ``S x S x 3`` uint8, RGB, after the deterministic preprocessing.
    """

    id: str
    label: int
    origin: str
    digest: str
    pixels: Pixels


@dataclass(frozen=True)
class ImageIndex:
    """What is known of every image of a task but its pixels, in the source's order."""

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    origins: tuple[str, ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def content_digest(self) -> str:
        """Return the digest of all (id, label, origin, pixel digest), whatever their order."""
        rows = zip(self.ids, self.labels, self.origins, self.digests, strict=True)
        return digest(sorted([list(row) for row in rows]))


def write_images(
    path: str | Path,
    samples: Iterable[PreparedImage],
    image_size: int,
    interpolation: str = "bicubic",
) -> ImageIndex:
    """Write images to ``path``; equal samples give equal bytes.

    Args:
        path: the Arrow file to write; whole or absent.
        samples: the rows; consumed one by one.
        image_size: side ``S`` of the images.
        interpolation: how they were resized; noted in the file's header.

    Returns:
        The rows without their pixels.

    Raises:
        DataError: if there are no rows, or a row's pixels are not ``S x S x 3`` uint8.
        ArtifactError: if the file system refuses to write.
    """
    with sealed_path(path) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as scratch:
        index = _spool(samples, image_size, scratch, path)
        # Not closed by hand: Arrow may hold the map a little longer; the last holder frees it.
        spooled = pa.py_buffer(mmap.mmap(scratch.fileno(), 0, access=mmap.ACCESS_READ))
        batch = _batch(index, spooled, image_size, interpolation)
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
            file.write_batch(batch)
    return index


def _spool(
    samples: Iterable[PreparedImage], image_size: int, scratch: IO[bytes], path: str | Path
) -> ImageIndex:
    shape = (image_size, image_size, _CHANNELS)
    rows: list[tuple[str, int, str, str]] = []
    for sample in samples:
        if sample.pixels.shape != shape or sample.pixels.dtype != np.uint8:
            raise DataError(
                f"image {sample.id!r} is {sample.pixels.dtype} of shape {sample.pixels.shape}, "
                f"but {path} holds uint8 images of shape {shape}"
            )
        scratch.write(np.ascontiguousarray(sample.pixels).data)
        rows.append((sample.id, int(sample.label), sample.origin, sample.digest))
    if not rows:
        raise DataError(f"there are no images to write to {path}")
    scratch.flush()
    ids, labels, origins, digests = zip(*rows, strict=True)
    return ImageIndex(ids, labels, origins, digests)


def _batch(
    index: ImageIndex, pixels: pa.Buffer, image_size: int, interpolation: str
) -> pa.RecordBatch:
    width = image_size * image_size * _CHANNELS
    columns: dict[str, pa.Array] = {
        "id": pa.array(index.ids, pa.utf8()),
        "label": pa.array(index.labels, pa.int64()),
        "origin": pa.array(index.origins, pa.utf8()),
        "digest": pa.array(index.digests, pa.utf8()),
        "pixels": pa.Array.from_buffers(pa.binary(width), len(index), [None, pixels]),
    }
    header = {
        b"format": _FORMAT,
        b"image_size": str(image_size).encode(),
        b"interpolation": interpolation.encode(),
        seals.NAME.encode(): seals.EMPTY.encode(),
    }
    schema = pa.schema(
        [pa.field(name, column.type, nullable=False) for name, column in columns.items()], header
    )
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)


@dataclass(frozen=True)
class ImageStore:
    """A file of images, opened in place.

    Attributes:
        path: the file.
        image_size: side ``S`` of the images.
        interpolation: how they were resized.
        pixels: ``N x S x S x 3`` uint8, RGB, read-only view of the file (no copy).
        labels: ``N`` int64 class indices, read-only view of the file.
    """

    path: Path
    image_size: int
    interpolation: str
    pixels: Pixels
    labels: npt.NDArray[np.int64]
    _batch: pa.RecordBatch

    @classmethod
    def open(cls, path: str | Path) -> ImageStore:
        """Open a store; its pixels are compared with its seal, and not kept in memory.

        Raises:
            ArtifactError: if the file is missing, damaged, or not a store of images.
        """
        path = Path(path)
        # Before Arrow looks: a damaged head ends the process, not the call.
        seals.check(path)
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            header = reader.schema.metadata or {}
            if header.get(b"format") != _FORMAT:
                raise seals.damaged(path, "it is not a file of images that this version reads")
            batch = reader.get_batch(0)
        except (pa.ArrowException, OSError) as error:
            raise seals.damaged(path, str(error)) from error
        size = int(header[b"image_size"])
        shape = (batch.num_rows, size, size, _CHANNELS)
        return cls(
            path=path,
            image_size=size,
            interpolation=header[b"interpolation"].decode(),
            pixels=_view(batch.column("pixels"), np.uint8).reshape(shape),
            labels=_view(batch.column("label"), np.int64),
            _batch=batch,
        )

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @cached_property
    def ids(self) -> list[str]:
        """Names of the images."""
        return self._texts("id")

    @cached_property
    def origin(self) -> list[str]:
        """The source's own split of each image."""
        return self._texts("origin")

    @cached_property
    def pixel_digests(self) -> list[str]:
        """Digest of each image as decoded, before resizing."""
        return self._texts("digest")

    @property
    def index(self) -> ImageIndex:
        """All of the store but the pixels."""
        return ImageIndex(
            tuple(self.ids),
            tuple(self.labels.tolist()),
            tuple(self.origin),
            tuple(self.pixel_digests),
        )

    def rows(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row numbers of images, in the order of ``ids``.

        Raises:
            DataError: if an image is not in the store.
        """
        try:
            return np.fromiter((self._row_of[name] for name in ids), np.int64, len(ids))
        except KeyError as error:
            raise DataError(
                f"{self.path} has no image {error.args[0]!r}: it was made from other data than the "
                "split that names it; delete both and run again"
            ) from None

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def _texts(self, column: str) -> list[str]:
        texts: list[str] = self._batch.column(column).to_pylist()
        return texts


def _view(column: pa.Array, dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.frombuffer(column.buffers()[1], dtype)
