"""States written piece by piece: any size, in bounded memory, whole or absent at the end.

The bytes are those that ``save_state`` would write: the header has its final length from the start,
every tensor its place, and the digest grows along as long as tensors arrive by name; what comes out
of turn is read back from the file when its turn has come.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.atomic import atomic_path, explain_os_error, read_json, write_json
from taskgrid.store.shards import TensorSpec, read_exactly
from taskgrid.store.weights import HEADER, digest_prefix

_NO_DIGEST = "0" * 32
_READ_BACK = 1 << 20
_WRITE_BEHIND = 8 << 20


class StateWriter:
    """A state that is being written; made by ``write_stream``.

    One thread at a time may use it. Every byte of every tensor is written exactly once.
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
            file.finish({**lineage, "digest": digest.hexdigest()})

    def _complete(self, name: str) -> bool:
        return self._missing[name] == 0

    def _read(self, name: str, offset: int, buffer: memoryview) -> None:
        self._homes[name].read(name, offset, buffer)


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
    files: list[_File] = []
    with ExitStack() as published:
        published.callback(_close, files)
        for name, part in zip(targets, parts, strict=True):
            _remove_leftovers(name)
            temporary = published.enter_context(atomic_path(name))
            files.append(_File(name, temporary, part, lineage, metadata or {}))
        writer = StateWriter(files)
        yield writer
        writer._finish(lineage)
        _retire(target, {name.name for name in targets})
    if len(parts) > 1:
        _write_index(target, dict(zip(targets, parts, strict=True)), lineage, writer.digest())


def check_space(folder: Path, nbytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        ArtifactError: if less than ``nbytes`` are free; names both sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise ArtifactError(
            f"cannot write to {folder}: {nbytes / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; "
            "free some space or ask for fewer outputs at a time"
        )


def index_path(path: Path) -> Path:
    """Return the path of the index of a state in shards."""
    return path.with_name(f"{path.name}.index.json")


def _close(files: Sequence[_File]) -> None:
    for file in files:
        file.close()


class _File:
    """One safetensors file of fixed layout; its header is written last."""

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
        self._begin = len(self._header({**lineage, "digest": _NO_DIGEST}))
        self._in_cache = 0
        self._descriptor = os.open(path, os.O_RDWR)
        # Held until the file is published: says that its writer is alive.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        os.ftruncate(self._descriptor, self._begin + end)

    def write(self, name: str, offset: int, data: memoryview) -> None:
        place, done = self._begin + self._starts[name] + offset, 0
        self._in_cache += len(data)
        while done < len(data):
            try:
                done += os.pwrite(self._descriptor, data[done:], place + done)
            except OSError as error:
                raise explain_os_error(error, self._target) from error
        if self._in_cache >= _WRITE_BEHIND and hasattr(os, "posix_fadvise"):
            # Begins to write what is dirty and forgets what is on disk: the file must get there before
            # it is published, and memory that others can use is not filled with it until then.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            self._in_cache = 0

    def read(self, name: str, offset: int, buffer: memoryview) -> None:
        place = self._begin + self._starts[name] + offset
        read_exactly(self._descriptor, buffer, place, self._path)

    def finish(self, lineage: Mapping[str, str]) -> None:
        os.pwrite(self._descriptor, self._header(lineage), 0)

    def close(self) -> None:
        os.close(self._descriptor)

    def _header(self, lineage: Mapping[str, str]) -> bytes:
        texts = {HEADER: canonical_json(dict(lineage)), **self._metadata}
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
                piece = buffer[: spec.nbytes - self._fed]
                read(spec.name, self._fed, piece)
                self._add(piece)

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
    texts = {"total_size": total, HEADER: canonical_json({**lineage, "digest": digest})}
    write_json(index_path(path), {"metadata": texts, "weight_map": places})


def _retire(path: Path, keep: set[str]) -> None:
    """Remove an earlier state of this name, its index first: a reader finds all of it or nothing."""
    index = index_path(path)
    stale: set[str] = set()
    if index.is_file():
        stale = {Path(name).name for name in read_json(index).get("weight_map", {}).values()}
        index.unlink()
    for name in (stale | {path.name}) - keep:
        path.with_name(name).unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of killed writers; living ones hold a lock, or are still empty."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            descriptor = os.open(leftover, os.O_RDONLY)
        except OSError:
            continue
        try:
            if os.fstat(descriptor).st_size:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(descriptor)
