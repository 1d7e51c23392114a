"""Training images before the centre crop, on disk: one memory-mapped Arrow file per task.

A random crop may show what the centre crop has cut away, so images that are not square are kept
whole here, beside the prepared ones of `taskgrid.store.images`. Each is an array of a size of its
own; the file is Arrow IPC (uncompressed), written as a stream, and read in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taskgrid.errors import DataError
from taskgrid.store import seals
from taskgrid.store.atomic import sealed_path
from taskgrid.store.images import ImageStore, Pixels

CROP_RATIO: Final = (3 / 4, 4 / 3)
"""Smallest and largest width over height of a random crop (torchvision's default): originals are
kept as finely as such crops need them."""

_FORMAT = b"taskgrid.originals/1"
_CHANNELS = 3
_ROWS_PER_BATCH = 64
_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("digest", pa.utf8(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("tall", pa.int32(), nullable=False),
        pa.field("wide", pa.int32(), nullable=False),
        pa.field("pixels", pa.large_binary(), nullable=False),
    ],
    {b"format": _FORMAT, seals.NAME.encode(): seals.EMPTY.encode()},
)


@dataclass(frozen=True)
class Original:
    """An image that is kept whole.

    Attributes:
        height: its height as decoded.
        width: its width as decoded.
        pixels: all of it, ``tall x wide x 3`` uint8, RGB; each axis may be resized for itself.
    """

    height: int
    width: int
    pixels: Pixels


@dataclass
class OriginalsWriter:
    """Takes originals one by one; see ``write_originals``.

    Attributes:
        count: how many it took.
    """

    _file: pa.ipc.RecordBatchFileWriter
    count: int = 0
    _rows: list[tuple[int, str, Original]] = field(default_factory=list)

    def add(self, row: int, digest: str, original: Original) -> None:
        """Store an original.

        Args:
            row: the image's row in the file of prepared images; rows come in increasing order.
            digest: the image's pixel digest there.
            original: the image.
        """
        self._rows.append((row, digest, original))
        self.count += 1
        if len(self._rows) == _ROWS_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        if not self._rows:
            return
        rows, digests, originals = zip(*self._rows, strict=True)
        columns = {
            "row": rows,
            "digest": digests,
            "height": [each.height for each in originals],
            "width": [each.width for each in originals],
            "tall": [each.pixels.shape[0] for each in originals],
            "wide": [each.pixels.shape[1] for each in originals],
            "pixels": [np.ascontiguousarray(each.pixels).tobytes() for each in originals],
        }
        self._file.write_batch(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))
        self._rows.clear()


@contextmanager
def write_originals(path: str | Path) -> Iterator[OriginalsWriter]:
    """Write a file of originals within the block; equal originals give equal bytes.

    The file appears when the block ends well, with or without originals; else nothing is left.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with (
        sealed_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as file,
    ):
        writer = OriginalsWriter(file)
        yield writer
        writer.flush()


@dataclass(frozen=True)
class OriginalStore:
    """A file of originals, opened in place.

    Attributes:
        path: the file.
        rows: ``N`` rows in the file of prepared images, increasing.
        sizes: ``N x 2`` heights and widths as decoded.
        shapes: ``N x 2`` heights and widths as kept.
        digests: pixel digests.
    """

    path: Path
    rows: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int64]
    digests: tuple[str, ...]
    _chunks: tuple[tuple[Pixels, npt.NDArray[np.int64]], ...]
    _starts: npt.NDArray[np.int64]

    @classmethod
    def open(cls, path: str | Path) -> OriginalStore:
        """Open a store; its pixels are compared with its seal, and not kept in memory.

        Raises:
            ArtifactError: if the file is missing, damaged, or not a store of originals.
        """
        path = Path(path)
        seals.check(path)
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if (reader.schema.metadata or {}).get(b"format") != _FORMAT:
                raise seals.damaged(path, "it is not a file of originals that this version reads")
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise seals.damaged(path, str(error)) from error
        table = pa.Table.from_batches(batches, reader.schema)
        return cls(
            path=path,
            rows=_numbers(table, "row")[:, 0],
            sizes=_numbers(table, "height", "width"),
            shapes=_numbers(table, "tall", "wide"),
            digests=tuple(table.column("digest").to_pylist()),
            _chunks=tuple(_chunk(batch.column("pixels")) for batch in batches),
            _starts=np.cumsum([0, *(batch.num_rows for batch in batches)]),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, place: int) -> Pixels:
        """Return an original, ``tall x wide x 3``, as a read-only view of the file."""
        chunk = int(np.searchsorted(self._starts, place, side="right")) - 1
        data, offsets = self._chunks[chunk]
        start = offsets[place - self._starts[chunk]]
        tall, wide = self.shapes[place].tolist()
        return data[start : start + tall * wide * _CHANNELS].reshape(tall, wide, _CHANNELS)

    def places(
        self, images: ImageStore, rows: Sequence[int] | npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return where the originals of some prepared images are, -1 for one that has none.

        Raises:
            DataError: if the originals are not those of these images.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        known = images.pixel_digests
        for row, digest in zip(self.rows.tolist(), self.digests, strict=True):
            if row >= len(known) or known[row] != digest:
                raise DataError(
                    f"{self.path} does not belong to {images.path}: its image {row} is another "
                    "one; delete both and run again"
                )
        if not len(self):
            return np.full(len(wanted), -1, dtype=np.int64)
        found = np.searchsorted(self.rows, wanted).clip(max=len(self) - 1)
        return np.where(self.rows[found] == wanted, found, -1)


def _numbers(table: pa.Table, *columns: str) -> npt.NDArray[np.int64]:
    return np.stack([table.column(name).to_numpy().astype(np.int64) for name in columns], axis=1)


def _chunk(column: pa.Array) -> tuple[Pixels, npt.NDArray[np.int64]]:
    _, offsets, data = column.buffers()
    return np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64)
