"""Per-sample outcomes of evaluations, found again by the digest of all they depend on.

The store is a folder of small immutable Arrow files. A writer adds files under names of their own
and never changes one, so any number of processes, also on several machines over NFS, can write and
read at once. Files are read, not memory-mapped: a mapped file that another machine deletes ends
the reader with a bus error, a read one with an exception.
"""

from __future__ import annotations

import itertools
import struct
import time
import uuid
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import pyarrow as pa
from pyarrow import ipc

from taskgrid.errors import ArtifactError
from taskgrid.store import seals
from taskgrid.store.atomic import sealed_path
from taskgrid.store.outcome import Outcome

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(16), nullable=False),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("correct", pa.int64(), nullable=False),
        pa.field("nll", pa.float64(), nullable=False),
        pa.field("ece", pa.float64(), nullable=False),
        pa.field("bits", pa.large_binary(), nullable=False),
        pa.field("predicted", pa.large_binary(), nullable=False),
        pa.field("check", pa.uint32(), nullable=False),
    ],
    {seals.NAME: seals.EMPTY},
)
_SUFFIX = ".arrow"
_BATCH_ROWS = 4096
_STALE_SECONDS = 24 * 3600.0
_UNREADABLE = (pa.ArrowException, OSError, ValueError)

Batches: TypeAlias = tuple[tuple[bytes, ...], ...]
"""The keys of a file, by record batch."""


class OutcomeStore:
    """Outcomes under one folder; safe for any number of concurrent writers and readers.

    A file that cannot be read is left alone with a warning: its outcomes count as missing and are
    computed again.

    Args:
        root: folder of the store; made by the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self._index: dict[str, Batches] = {}

    def find(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """Return the outcomes that are stored, by key; keys that are not stored are left out."""
        wanted = {bytes.fromhex(key) for key in keys}
        found: dict[str, tuple[int, Outcome]] = {}
        while not self._collect(wanted, found):
            # A file was merged into another one between listing and reading it: look again.
            pass
        return {key: outcome for key, (_, outcome) in found.items()}

    def append(self, outcomes: Sequence[Outcome]) -> Path | None:
        """Write outcomes as one new file, whole or not at all.

        Returns:
            The file, or None when there was nothing to write.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        return self._write([_table(outcomes)]) if outcomes else None

    def writer(self, seconds: float = 5.0) -> OutcomeWriter:
        """Return a context manager that collects outcomes and stores them every few seconds."""
        return OutcomeWriter(self, seconds)

    def compact(self, files: Sequence[Path] | None = None) -> Path | None:
        """Merge files into one, and only then delete them; other processes may go on meanwhile.

        Outcomes that do not match their checksums are left behind.

        Args:
            files: what to merge; None means every file, and also clears away temporary files that
                killed processes left behind more than a day ago.

        Returns:
            The merged file, or None when there was nothing to merge.
        """
        if files is None:
            self._clear_stale()
            files = [self._root / name for name in self._names()]
        sources: list[Path] = []
        tables: list[pa.Table] = []
        for path in files:
            try:
                tables.append(_read(path))
            except FileNotFoundError:
                continue
            except _UNREADABLE as error:
                _warn(path, error)
            else:
                sources.append(path)
        if len(sources) < 2:
            return None
        merged = self._write(tables)
        for path in sources:
            path.unlink(missing_ok=True)
            seals.forget(path)
        return merged

    def _write(self, tables: Sequence[pa.Table]) -> Path:
        order = [("key", "ascending"), ("check", "ascending")]
        table = pa.concat_tables(tables).combine_chunks().sort_by(order)
        rows = list(zip(table["key"].to_pylist(), table["check"].to_pylist(), strict=True))
        repeated = [False, *(left == right for left, right in itertools.pairwise(rows))]
        table = table.filter(pa.array([not again for again in repeated])).combine_chunks()
        path = self._root / f"{uuid.uuid4().hex}{_SUFFIX}"
        with sealed_path(path) as temporary, ipc.new_file(temporary, _SCHEMA) as sink:
            for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
                sink.write_batch(batch)
        return path

    def _collect(self, wanted: set[bytes], found: dict[str, tuple[int, Outcome]]) -> bool:
        self._refresh()
        for name, batches in self._index.items():
            hits = [[row for row, key in enumerate(keys) if key in wanted] for keys in batches]
            if not any(hits):
                continue
            path = self._root / name
            try:
                self._take(path, hits, found)
            except FileNotFoundError:
                return False
            except _UNREADABLE as error:
                _warn(path, error)
        return True

    def _take(
        self, path: Path, hits: Sequence[list[int]], found: dict[str, tuple[int, Outcome]]
    ) -> None:
        damaged = 0
        with pa.OSFile(str(path)) as source:
            reader = ipc.open_file(source)
            _check_schema(reader.schema, _SCHEMA)
            for index, rows in enumerate(hits):
                if not rows:
                    continue
                batch = reader.get_batch(index)
                batch.validate(full=True)
                for outcome, check in _outcomes(batch.take(pa.array(rows))):
                    if _check(outcome) != check:
                        damaged += 1
                        continue
                    known = found.get(outcome.key)
                    # Two devices may round differently: the choice must not depend on file names.
                    if known is None or check < known[0]:
                        found[outcome.key] = (check, outcome)
        if damaged:
            _warn(path, f"{damaged} of its outcomes do not match their checksums")

    def _refresh(self) -> None:
        names = self._names()
        self._index = {name: self._index[name] for name in names if name in self._index}
        for name in names:
            if name in self._index:
                continue
            try:
                self._index[name] = _file_keys(self._root / name)
            except FileNotFoundError:
                continue
            except _UNREADABLE as error:
                _warn(self._root / name, error)
                self._index[name] = ()

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._root.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtifactError(
                f"the outcome store {self._root} cannot be read: {error.strerror}"
            ) from error

    def _clear_stale(self) -> None:
        if not self._root.is_dir():
            return
        for path in self._root.glob(f".*{_SUFFIX}.*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue


class OutcomeWriter:
    """Stores outcomes every few seconds, so that a killed process loses no more than that.

    At the end, also after an error, the rest is stored and the files of this writer become one.
    """

    def __init__(self, store: OutcomeStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._pending: list[Outcome] = []
        self._files: list[Path] = []
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        merged = self._store.compact(self._files)
        self._files = [merged] if merged is not None else self._files

    def add(self, outcome: Outcome) -> None:
        """Take an outcome; store all that wait when the time has come."""
        self._pending.append(outcome)
        if time.monotonic() - self._last >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Store all outcomes that wait."""
        path = self._store.append(self._pending)
        if path is not None:
            self._files.append(path)
        self._pending.clear()
        self._last = time.monotonic()


def _table(outcomes: Sequence[Outcome]) -> pa.Table:
    for outcome in outcomes:
        if len(outcome.bits) != (outcome.n + 7) // 8:
            raise ValueError(
                f"outcome {outcome.key}: {len(outcome.bits)} bytes for {outcome.n} bits"
            )
    columns: dict[str, list[Any]] = {
        "key": [bytes.fromhex(outcome.key) for outcome in outcomes],
        "n": [outcome.n for outcome in outcomes],
        "correct": [outcome.correct for outcome in outcomes],
        "nll": [outcome.nll for outcome in outcomes],
        "ece": [outcome.ece for outcome in outcomes],
        "bits": [outcome.bits for outcome in outcomes],
        "predicted": [outcome.predicted for outcome in outcomes],
        "check": [_check(outcome) for outcome in outcomes],
    }
    return pa.table(columns, schema=_SCHEMA)


def _outcomes(batch: pa.RecordBatch) -> Iterator[tuple[Outcome, int]]:
    columns = [batch.column(name).to_pylist() for name in _SCHEMA.names]
    for key, n, correct, nll, ece, bits, predicted, check in zip(*columns, strict=True):
        yield Outcome(key.hex(), n, correct, nll, ece, bits, predicted), check


def _check(outcome: Outcome) -> int:
    numbers = struct.pack("<qqdd", outcome.n, outcome.correct, outcome.nll, outcome.ece)
    parts = (bytes.fromhex(outcome.key), numbers, outcome.bits, outcome.predicted)
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return check


def _file_keys(path: Path) -> Batches:
    _check_file(path)
    with pa.OSFile(str(path)) as source:
        reader = ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=[0]))
        _check_schema(reader.schema, pa.schema([_SCHEMA.field(0)]))
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        return tuple(tuple(batch.column(0).to_pylist()) for batch in batches)


def _read(path: Path) -> pa.Table:
    _check_file(path)
    with pa.OSFile(str(path)) as source:
        table = ipc.open_file(source).read_all()
    _check_schema(table.schema, _SCHEMA)
    table.validate(full=True)
    sound = [
        _check(outcome) == check
        for batch in table.to_batches()
        for outcome, check in _outcomes(batch)
    ]
    return table.filter(pa.array(sound, pa.bool_()))


def _check_file(path: Path) -> None:
    # Before Arrow looks: a damaged head ends the process, not the call.
    reason = seals.fault(path)
    if reason == seals.UNSEALED:
        raise _OutdatedError
    if reason is not None:
        raise ValueError(reason)


class _OutdatedError(ValueError):
    """A file has other columns than this version writes."""


def _check_schema(found: pa.Schema, wanted: pa.Schema) -> None:
    if found != wanted:
        raise _OutdatedError


def _warn(path: Path, reason: object) -> None:
    # Of an earlier version's files there may be thousands: one sentence for the folder.
    words = (
        f"{path.parent} holds outcomes of an earlier version of taskgrid, which are computed again; delete "
        "the folder if no results of that version are needed"
        if isinstance(reason, _OutdatedError)
        else f"{path} is damaged ({reason}); its outcomes are computed again, the file can be deleted"
    )
    warnings.warn(words, RuntimeWarning, stacklevel=2)
