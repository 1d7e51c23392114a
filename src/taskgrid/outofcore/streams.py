"""States written piece by piece: any size, in bounded memory, whole or absent at the end.

The bytes are those that ``save_state`` would write: the header has its final length from the start,
every tensor its place, and the digest grows along as long as tensors arrive by name; what comes out
of turn is read back from the file when its turn has come.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.outofcore.shards import TensorSpec, read_exactly
from taskgrid.outofcore.staging import remove_leftovers, staging
from taskgrid.store.atomic import explain_os_error, publish, read_foreign_json, write_text
from taskgrid.store.index import index_path, shard_of
from taskgrid.store.weights import HEADER, digest_prefix, lineage_text, read_lineage

_NO_DIGEST = "0" * 32
_READ_BACK = 1 << 20
_WRITE_BEHIND = 8 << 20


class StateWriter:
    """A state that is being written; made by ``write_stream``.

    One thread at a time may use it. Every byte of every tensor is written exactly once. Where they
    come in the order of the files, one file is open at a time.
    """

    def __init__(self, files: Sequence[_File]) -> None:
        self._homes = {spec.name: file for file in files for spec in file.specs}
        self._missing = {spec.name: spec.nbytes for file in files for spec in file.specs}
        self._digests = {file: _RunningDigest(file.specs) for file in files}
        everything = [spec for file in files for spec in file.specs]
        # Each shard is a state with a digest of its own, and all of them together are one.
        self._whole = self._digests[files[0]] if len(files) == 1 else _RunningDigest(everything)

    def write(self, name: str, offset: int, data: memoryview) -> None:
        """Write bytes of a tensor.

        Args:
            name: the tensor.
            offset: where its bytes go, counted from the tensor's start.
            data: the bytes; they may be reused afterwards.
        """
        home = self._homes[name]
        home.write(name, offset, data)
        self._missing[name] -= len(data)
        for digest in {self._digests[home], self._whole}:
            digest.feed(name, offset, data)
            digest.catch_up(self._complete, self._read)
        home.close_if_whole()

    def digest(self) -> str:
        """Return the digest of the whole state.

        Raises:
            ValueError: if a tensor was not written whole.
        """
        for name, count in self._missing.items():
            if count:
                raise ValueError(f"{count} bytes of {name!r} were not written")
        for digest in {self._whole, *self._digests.values()}:
            digest.catch_up(self._complete, self._read)
        return self._whole.hexdigest()

    def _finish(self, lineage: Mapping[str, str]) -> None:
        self.digest()
        for file, digest in self._digests.items():
            file.finish(lineage, digest.hexdigest())
            file.close()

    def _complete(self, name: str) -> bool:
        return self._missing[name] == 0

    def _read(self, name: str, offset: int, buffer: memoryview) -> None:
        home = self._homes[name]
        home.read(name, offset, buffer)
        home.close_if_whole()


@contextmanager
def write_stream(
    path: str | Path,
    specs: Sequence[TensorSpec],
    lineage: Mapping[str, str],
    *,
    shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[StateWriter]:
    """Give a writer for a state of known layout; publish the files when the block ends well.

    On any error nothing appears under ``path``. What a killed process left behind is removed when
    the same path is written again.

    Args:
        path: the safetensors file; with several shards they are named after it, as transformers
            does: ``NAME-00001-of-00003.safetensors``, with ``NAME.safetensors.index.json`` beside.
        specs: the tensors, in the order they shall lie in.
        lineage: what the state was made from; its digest is added.
        shard_bytes: begin another shard before this size would be exceeded; None for one file.
        metadata: further texts for the headers.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    target = Path(path)
    parts = list(_cut(specs, shard_bytes))
    targets = [target] if len(parts) == 1 else _shard_paths(target, len(parts))
    remove_leftovers(target)
    with staging(target) as folder:
        files = [
            _File(name, folder / name.name, part, lineage, metadata or {})
            for name, part in zip(targets, parts, strict=True)
        ]
        try:
            writer = StateWriter(files)
            yield writer
            writer._finish(lineage)
        finally:
            for file in files:
                file.close()
        finished = [name.name for name in targets]
        if len(parts) > 1:
            index = folder / index_path(target).name
            _write_index(index, dict(zip(targets, parts, strict=True)), lineage, writer.digest())
            finished.append(index.name)
        try:
            _retire(target, set(finished))
            for file_name in finished:
                publish(folder / file_name, target.with_name(file_name))
        except OSError as error:
            raise explain_os_error(error, target) from error


def check_space(paths: Iterable[Path], nbytes: int) -> None:
    """Refuse to begin what the disks have no room for.

    Args:
        paths: files, or states in shards, that are to be written at once.
        nbytes: what each of them takes.

    Raises:
        ArtifactError: if a disk has less free than what goes there; names both sizes.
    """
    folders = [_existing(path.parent) for path in paths]
    disks = [folder.stat().st_dev for folder in folders]
    on_disk = dict(zip(disks, folders, strict=True))
    for disk, count in Counter(disks).items():
        free = shutil.disk_usage(on_disk[disk]).free
        if free < count * nbytes:
            raise ArtifactError(
                f"cannot write to the disk of {on_disk[disk]}: {count * nbytes / 1e9:.1f} GB are "
                f"needed, {free / 1e9:.1f} GB are free; free some space or ask for fewer outputs at a "
                "time"
            )


class _File:
    """One safetensors file of fixed layout, open from its first byte to its last; then the header."""

    def __init__(
        self,
        target: Path,
        path: Path,
        specs: Sequence[TensorSpec],
        lineage: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> None:
        self.specs = specs
        self._target = target
        self._path = path
        self._metadata = metadata
        self._entries: dict[str, object] = {}
        self._starts: dict[str, int] = {}
        end = 0
        for spec in specs:
            self._starts[spec.name] = end
            span = [end, end := end + spec.nbytes]
            self._entries[spec.name] = {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": span,
            }
        self._begin = len(self._header(lineage, _NO_DIGEST))
        self._size = self._begin + end
        self._missing = end
        self._in_cache = 0
        self._descriptor: int | None = None

    def write(self, name: str, offset: int, data: memoryview) -> None:
        descriptor = self._open()
        place, done = self._begin + self._starts[name] + offset, 0
        self._in_cache += len(data)
        self._missing -= len(data)
        while done < len(data):
            try:
                done += os.pwrite(descriptor, data[done:], place + done)
            except OSError as error:
                raise explain_os_error(error, self._target) from error
        if self._in_cache >= _WRITE_BEHIND and hasattr(os, "posix_fadvise"):
            # Begins to write what is dirty and forgets what is on disk: the file must get there before
            # it is published, and memory that others can use is not filled with it until then.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            self._in_cache = 0

    def read(self, name: str, offset: int, buffer: memoryview) -> None:
        place = self._begin + self._starts[name] + offset
        read_exactly(self._open(), buffer, place, self._path)

    def finish(self, lineage: Mapping[str, str], digest: str) -> None:
        try:
            os.pwrite(self._open(), self._header(lineage, digest), 0)
        except OSError as error:
            raise explain_os_error(error, self._target) from error

    def close_if_whole(self) -> None:
        if not self._missing:
            self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.close(descriptor)
            except OSError as error:
                raise explain_os_error(error, self._target) from error

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
                os.ftruncate(self._descriptor, self._size)
            except OSError as error:
                raise explain_os_error(error, self._target) from error
        return self._descriptor

    def _header(self, lineage: Mapping[str, str], digest: str) -> bytes:
        texts = {HEADER: lineage_text(lineage, digest), **self._metadata}
        header = {"__metadata__": texts, **self._entries}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        # The data begin at a multiple of eight bytes, as the format's own writer has it.
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


class _RunningDigest:
    """``digest_state`` of tensors whose bytes arrive in any order."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._queue = sorted(specs, key=lambda spec: spec.name, reverse=True)
        self._hash = hashlib.sha256()
        self._fed = 0
        self._announce()

    def feed(self, name: str, offset: int, data: memoryview) -> None:
        """Add bytes if it is their turn."""
        if self._queue and self._queue[-1].name == name and self._fed == offset:
            self._add(data)

    def catch_up(
        self, complete: Callable[[str], bool], read: Callable[[str, int, memoryview], None]
    ) -> None:
        """Read back the tensors that were written before their turn, as far as it has come."""
        while self._queue and complete(self._queue[-1].name):
            spec = self._queue[-1]
            with memoryview(bytearray(min(_READ_BACK, spec.nbytes - self._fed))) as buffer:
                read(spec.name, self._fed, buffer)
                self._add(buffer)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()[:32]

    def _add(self, data: memoryview) -> None:
        self._hash.update(data)
        self._fed += len(data)
        if self._fed == self._queue[-1].nbytes:
            self._queue.pop()
            self._fed = 0
            self._announce()

    def _announce(self) -> None:
        if self._queue:
            spec = self._queue[-1]
            self._hash.update(digest_prefix(spec.name, spec.torch_dtype, spec.shape))


def _cut(specs: Sequence[TensorSpec], limit: int | None) -> Iterator[list[TensorSpec]]:
    part: list[TensorSpec] = []
    size = 0
    for spec in specs:
        if part and limit is not None and size + spec.nbytes > limit:
            yield part
            part, size = [], 0
        part.append(spec)
        size += spec.nbytes
    yield part


def _shard_paths(path: Path, count: int) -> list[Path]:
    return [
        path.with_name(f"{path.stem}-{number:05d}-of-{count:05d}{path.suffix}")
        for number in range(1, count + 1)
    ]


def _write_index(
    path: Path, shards: Mapping[Path, Sequence[TensorSpec]], lineage: Mapping[str, str], digest: str
) -> None:
    places = {spec.name: file.name for file, part in shards.items() for spec in part}
    total = sum(spec.nbytes for part in shards.values() for spec in part)
    texts = {"total_size": total, HEADER: lineage_text(lineage, digest)}
    index = {"metadata": texts, "weight_map": places}
    # Not sealed: the file is for other programs, and its lineage has a digest of its own.
    write_text(path, json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _retire(path: Path, keep: set[str]) -> None:
    """Remove an earlier state of this name, its index first: a reader finds all of it or nothing.

    Shards without an index are what a writer left that was killed while it published them.
    """
    index = index_path(path)
    indexed = _indexed(index)
    index.unlink(missing_ok=True)
    if path.name not in keep:
        path.unlink(missing_ok=True)
    for file in list(path.parent.iterdir()):
        stale = shard_of(file) == path.name and file.name not in keep
        if stale and (file.name in indexed or _is_ours(file)):
            file.unlink(missing_ok=True)


def _indexed(index: Path) -> set[object]:
    with suppress(ArtifactError, LookupError, TypeError, AttributeError):
        return set(read_foreign_json(index)["weight_map"].values())
    return set()


def _is_ours(file: Path) -> bool:
    try:
        read_lineage(file)
    except ArtifactError:
        return False
    return True


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    found = folder.absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    return found
