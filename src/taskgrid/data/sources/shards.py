"""One file of a table: Parquet, an Arrow file or an Arrow stream, read a small batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskgrid.data.classnames import plain
from taskgrid.errors import DataError

_ROWS = 64
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)


class Shard:
    """One Parquet file, Arrow file or Arrow stream."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            if path.suffix.lower() == ".arrow":
                with self._arrow() as reader:
                    self.schema: pa.Schema = reader.schema
                    self.count = sum(batch.num_rows for batch in _record_batches(reader))
            else:
                with pq.ParquetFile(path) as file:
                    self.schema = file.schema_arrow
                    self.count = file.metadata.num_rows
            size = path.stat().st_size
            _read_names(self.schema)
        if self.count > size:
            raise DataError(
                f"{path} says that it has {self.count} rows, in {size} bytes; download it again"
            )

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield rows of Python values, reading a small batch at a time."""
        with self._explained():
            for batch in self._batches(columns):
                yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)

    def some(self, column: str, wanted: frozenset[int]) -> Iterator[tuple[int, Any]]:
        """Yield the number and the value of some rows, reading no more than needed."""
        if self.path.suffix.lower() == ".arrow":
            values = enumerate(value for (value,) in self.rows([column]))
            yield from ((row, value) for row, value in values if row in wanted)
            return
        with self._explained(), pq.ParquetFile(self.path) as file:
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if not wanted.isdisjoint(range(start, stop)):
                    for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[column]):
                        picked = sorted(wanted.intersection(range(start, start + batch.num_rows)))
                        taken = batch.column(column).take(pa.array([r - start for r in picked]))
                        yield from zip(picked, taken.to_pylist(), strict=True)
                        start += batch.num_rows
                start = stop

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self.path.suffix.lower() == ".arrow":
            with self._arrow() as reader:
                for batch in _record_batches(reader):
                    picked = batch.select(list(columns))
                    # Without this, damaged offsets are followed to wherever they lead.
                    picked.validate(full=True)
                    for start in range(0, batch.num_rows, _ROWS):
                        yield picked.slice(start, _ROWS)
        else:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(batch_size=_ROWS, columns=list(columns))

    @contextmanager
    def _arrow(self) -> Iterator[Any]:
        with pa.memory_map(str(self.path)) as source:
            try:
                reader = pa.ipc.open_file(source)
            except pa.ArrowInvalid:
                source.seek(0)
                reader = pa.ipc.open_stream(source)
            with reader:
                yield reader

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (*_DAMAGE, MemoryError) as error:
            raise DataError(
                f"{self.path} is damaged or no {self.path.suffix or 'Parquet'} "
                f"file ({' '.join(str(error).split())}); download it again"
            ) from error


def _read_names(fields: Iterable[pa.Field]) -> None:
    """Read all names, which fails where they are no text: here, and not wherever one is looked at."""
    for field in fields:
        repr(field.name)
        if pa.types.is_struct(field.type):
            _read_names(field.type.field(place) for place in range(field.type.num_fields))


def _record_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def features_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what the ``huggingface`` metadata of a schema say of each column, if anything."""
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(described, dict):
        return {}
    return {name: value for name, value in described.items() if isinstance(value, dict)}


def class_label(shard: Shard, column: str) -> tuple[str, ...] | None:
    """Return the names in a file's ``ClassLabel`` metadata, if its label column has them."""
    names = features_of(shard.schema).get(column, {}).get("names")
    if not isinstance(names, list) or not names:
        return None
    return tuple(plain(str(name)) for name in names)


def class_names(path: Path, label: str) -> tuple[str, ...] | None:
    """Return the names in the ``ClassLabel`` metadata of the file at a path.

    Raises:
        DataError: if the file is damaged.
    """
    return class_label(Shard(path), label)
