"""Reading the tensors out of a pickled checkpoint without running what it carries.

Both formats that ``torch.save`` writes are read: the zip archive, and the older one (torch < 1.6) of
pickles followed by bytes; and plain pickles (``pickle.dump``), which hold each storage as the bytes of
a file of the older format. The tensors are read after the program (``pickle_program``) has come to its
end.

``torch.load(weights_only=True)`` with inert stand-ins for the names that
``torch.serialization.get_unsafe_globals_in_checkpoint`` lists does not do (tried with torch 2.15):

- of the older format it reads no module (``Only persistent_load of storage is allowed``), and the
  listing reads zip archives alone, so that nobody is told what an older file asks for;
- it does not compare an archive's checksums: a byte that changed on the way becomes a weight;
- it knows the instructions of protocol 2 alone;
- stand-ins are lent to the whole process, other threads' calls of ``torch.load`` included.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any, Final, Protocol

import torch

from taskgrid.errors import ArtifactError
from taskgrid.models.hub.pickle_program import (
    Record,
    Storage,
    UnreadTensor,
    damaged,
    run_program,
)
from taskgrid.store.foreign import check_size, kind_of
from taskgrid.store.weights import State

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_MOST_NODES: Final = 1_000_000
_MOST_TENSORS: Final = 100_000
_LONGEST_NAME: Final = 1000


def load_tensors(path: str | Path) -> State:
    """Return the tensors of a file that ``torch.save`` or ``pickle.dump`` wrote, by name.

    A module has the names of its ``state_dict()``; what lies in mappings, lists or objects has the
    names on the way to it, joined by dots. What is no tensor is left out. Nothing in the file is
    run, imported or called.

    Raises:
        ArtifactError: if the file asks for anything but tensors, containers and modules (the message
            lists all that it asked for), holds far more than its size, is a program of TorchScript or
            no pickle at all, or is damaged.
    """
    path = Path(path)
    if (kind := kind_of(path)) != "pickle":
        raise ArtifactError(f"{path} is no pickle but {kind}; read it with safetensors")
    try:
        with path.open("rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"
            stream.seek(0)
            source: _Source = _Archive(stream, path) if zipped else _Stream(stream, path)
            found = _named(source.content, path)
            if not found and isinstance(source, _Stream) and source.plain:
                raise ArtifactError(
                    f"{path} is no file of torch.save, and a pickle without tensors; give a checkpoint"
                )
            check_size(path, (_bytes_of(reference) for reference in found.values()))
            return _tensors(found, source)
    except _BROKEN as error:
        # Cut off, encrypted, nested a thousand deep, ...: there is one thing to do about all of it.
        raise damaged(path, str(error)) from error


_BROKEN: Final = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    MemoryError,
    zipfile.BadZipFile,
    struct.error,
)


class _Source(Protocol):
    content: Any

    def fill(self, storage: Storage, buffer: memoryview) -> None:
        """Read the bytes of a storage."""


class _Archive:
    """A zip archive: ``NAME/data.pkl`` and one entry per storage, none of them compressed."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._zip = zipfile.ZipFile(stream)
        self._path = path
        names = set(self._zip.namelist())
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise damaged(path, "it is no archive of torch.save")
        if f"{roots[0]}constants.pkl" in names:
            raise ArtifactError(
                f"{path} is a program (TorchScript), not a file of weights; save its state_dict as "
                "safetensors where it was made, and import that"
            )
        if f"{roots[0]}byteorder" in names and self._read(f"{roots[0]}byteorder") != b"little":
            raise damaged(path, "its numbers are big-endian")
        self._root = roots[0]
        self.content, _ = run_program(io.BytesIO(self._read(f"{self._root}data.pkl")), path)

    def fill(self, storage: Storage, buffer: memoryview) -> None:
        """Read the bytes of a storage."""
        name = f"{self._root}data/{storage.key}"
        with self._open(name) as entry:
            # The last read, of nothing, is what makes zipfile compare the checksum.
            if entry.readinto(buffer) != len(buffer) or entry.read(1):  # type: ignore[attr-defined]
                raise damaged(self._path, f"{name} has another size than its tensors")

    def _read(self, name: str) -> bytes:
        with self._open(name) as entry:
            return entry.read()

    def _open(self, name: str) -> IO[bytes]:
        try:
            info = self._zip.getinfo(name)
        except KeyError as error:
            raise damaged(self._path, f"{name} is not in it") from error
        if info.compress_type != zipfile.ZIP_STORED:
            raise damaged(self._path, f"{name} is compressed, which torch.save never does")
        return self._zip.open(info)


class _Stream:
    """Five pickles (magic number, version, machine, content, order of storages), then bytes; or one."""

    def __init__(self, stream: IO[bytes], path: Path, *, within: bool = False) -> None:
        self._stream = stream
        self._path = path
        self._starts: dict[str, int] = {}
        first, _ = run_program(stream, path, None if within else _Embedded(path))
        self.plain = type(first) is not int and not within
        if self.plain:
            self.content = first
            if stream.read(1):
                raise ArtifactError(
                    f"{path} is no file of torch.save, and holds more than one pickle; save what is "
                    "meant to a file of its own"
                )
            return
        if first != _MAGIC or run_program(stream, path)[0] != _PROTOCOL:
            raise ArtifactError(f"{path} is no file of torch.save; give a checkpoint")
        machine, _ = run_program(stream, path)
        if not isinstance(machine, dict) or not machine.get("little_endian", True):
            raise damaged(path, "its numbers are big-endian")
        self.content, storages = run_program(stream, path)
        order, _ = run_program(stream, path)
        for key in order if isinstance(order, list) else ():
            storage = storages.get(str(key)) if isinstance(key, str | int) else None
            (count,) = struct.unpack("<q", stream.read(8))
            if storage is None or count != storage.count:
                raise damaged(path, f"storage {key} has another size than its tensors")
            self._starts[storage.key] = stream.tell()
            stream.seek(count * storage.dtype.itemsize, io.SEEK_CUR)

    def fill(self, storage: Storage, buffer: memoryview) -> None:
        """Read the bytes of a storage."""
        if storage.held is not None:
            buffer[:] = storage.held
            return
        if storage.key not in self._starts:
            raise damaged(self._path, f"storage {storage.key} is not in it")
        self._stream.seek(self._starts[storage.key])
        if self._stream.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
            raise damaged(self._path, f"storage {storage.key} is cut off")

    def span(self, storage: Storage, data: bytes) -> memoryview:
        """Return the bytes of a storage among those of the whole file."""
        start, size = (
            self._starts.get(storage.key, len(data)),
            storage.count * storage.dtype.itemsize,
        )
        found = memoryview(data)[start : start + size]
        if len(found) != size:
            raise damaged(self._path, f"storage {storage.key} is cut off")
        return found


class _Embedded:
    """Reads storages that lie in a plain pickle, each once however often the program asks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The bytes are kept with what they hold, so that no others can have their identity.
        self._known: dict[int, tuple[bytes, Storage]] = {}

    def __call__(self, data: Any) -> Storage:
        """Return the storage in the bytes of a file of the older format."""
        if not isinstance(data, bytes):
            raise damaged(self._path, "a storage has no bytes")
        if id(data) not in self._known:
            source = _Stream(io.BytesIO(data), self._path, within=True)
            storage = source.content
            if not isinstance(storage, Storage) or storage.held is not None:
                raise damaged(self._path, "what should be a storage is none")
            self._known[id(data)] = data, replace(storage, held=source.span(storage, data))
        return self._known[id(data)][1]


class _Budget:
    """Counts what is walked: a few objects that contain each other make endless names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _MOST_NODES

    def spend(self) -> None:
        """Take note of one object."""
        self._left -= 1
        if self._left < 0:
            raise damaged(self._path, "its objects contain each other")


def _named(content: Any, path: Path) -> dict[str, UnreadTensor]:
    """Return the tensors below an object by their names, which must be different ones."""
    found: dict[str, UnreadTensor] = {}
    for name, reference in _walk(content, (), _Budget(path), frozenset()):
        if name in found:
            raise damaged(path, f"two of its tensors are called {name!r}")
        found[name] = reference
        if len(found) > _MOST_TENSORS:
            raise damaged(path, "it has more tensors than a checkpoint holds")
    return found


def _walk(
    value: Any, place: tuple[str, ...], budget: _Budget, above: frozenset[int]
) -> Iterator[tuple[str, UnreadTensor]]:
    """Yield the tensors below an object with their names."""
    budget.spend()
    if isinstance(value, UnreadTensor):
        if sum(map(len, place)) > _LONGEST_NAME:
            raise ValueError("one of its tensors has a name without end")
        yield ".".join(place), value
        return
    if id(value) in above:
        return
    above |= {id(value)}
    for name, part in _parts(value):
        yield from _walk(part, (*place, _text(name)), budget, above)


def _text(name: Any) -> str:
    # A tuple may hold one long text a million times.
    return str(name) if isinstance(name, str | int | float | None) else type(name).__name__


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what lies directly in an object, with its name there."""
    # dict.items: the file may have given a mapping another attribute of that name.
    if isinstance(value, Record):
        yield from value.items.items()
        if isinstance(value.state, dict):
            yield from (_of_module if _is_module(value.state) else dict.items)(value.state)
    elif isinstance(value, dict):
        yield from dict.items(value)
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _is_module(state: dict[Any, Any]) -> bool:
    return isinstance(state.get("_parameters"), dict) and isinstance(state.get("_modules"), dict)


def _of_module(state: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield what belongs to a module's ``state_dict()``: no settings, no fleeting buffers."""
    fleeting, buffers = state.get("_non_persistent_buffers_set"), state.get("_buffers")
    yield from dict.items(state["_parameters"])
    if isinstance(buffers, dict):
        for name, buffer in dict.items(buffers):
            if not (isinstance(fleeting, set) and name in fleeting):
                yield name, buffer
    yield from dict.items(state["_modules"])


def _bytes_of(reference: UnreadTensor) -> int:
    return prod(reference.size) * reference.storage.dtype.itemsize


def _tensors(found: Mapping[str, UnreadTensor], source: _Source) -> State:
    """Read each storage once, and take its tensors out of it; none shares memory with another."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, reference in found.items():
        storage = reference.storage
        groups.setdefault((storage.key, id(storage.held)), []).append(name)
    state: State = {}
    for names in groups.values():
        storage = found[names[0]].storage
        buffer = bytearray(storage.count * storage.dtype.itemsize)
        if not buffer:
            state |= {name: torch.empty(found[name].size, dtype=storage.dtype) for name in names}
            continue
        source.fill(storage, memoryview(buffer))
        whole = torch.frombuffer(buffer, dtype=storage.dtype)
        for name in names:
            reference = found[name]
            part = torch.as_strided(whole, reference.size, reference.stride, reference.offset)
            alone = len(names) == 1 and part.is_contiguous() and part.numel() == storage.count
            state[name] = part if alone else part.clone(memory_format=torch.contiguous_format)
    return {name: state[name] for name in found}
