"""Reading the tensors out of a pickled checkpoint without running what it carries.

A pickle is a program: it names functions and has them called. Here no name is ever looked up.
A short list of names that rebuild tensors and plain containers is given a meaning of our own; names
of known kinds of modules (torch.nn, open_clip, ...) become *records*, objects that keep what they are
given and do nothing; any other name makes the file refused, with all such names in the message. The
tensors are read from the file after its program has come to its end.

torch.load is not used, not even with an unpickler of ours: it hands TorchScript programs and old tar
archives to code that was not written for files from strangers. Both formats that torch.save writes
are read: the zip archive, and the older one (torch < 1.6) of pickles followed by bytes.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn, Protocol

import torch

from taskgrid.errors import ArtifactError
from taskgrid.store.weights import State

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_MOST_NODES: Final = 1_000_000

# Protocol 2, which torch.save uses, has Python 2's names.
_RENAMED: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_STORAGES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES: Final = frozenset(
    name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)
)

# Whatever begins like this is a module, or a setting that lies beside one. The list says what such
# a file is expected to hold; safe is a record of anything.
_KNOWN: Final = (
    "torch.nn.",
    "torch._C._nn.",
    "torchvision.",
    "open_clip.",
    "timm.",
    "src.",
    "PIL.",
)
_KNOWN_NAMES: Final = frozenset(
    {
        "argparse.Namespace",
        "functools.partial",
        "torch.Tensor",
        "torch._tensor.Tensor",
        "torch.device",
        "torch.memory_format",
    }
)


def load_tensors(path: str | Path) -> State:
    """Return the tensors of a file that ``torch.save`` wrote, by name.

    A module has the names of its ``state_dict()``; what lies in mappings, lists or objects has the
    names on the way to it, joined by dots. What is no tensor is left out. Nothing in the file is
    run, imported or called.

    Raises:
        ArtifactError: if the file asks for anything but tensors, containers and modules (the message
            lists all that it asked for), is a program of TorchScript, or is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"
            stream.seek(0)
            source: _Source = _Archive(stream, path) if zipped else _Legacy(stream, path)
            found = _named(source.content, path)
            return {name: _tensor(reference, source, path) for name, reference in found.items()}
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, struct.error) as error:
        # Cut off, encrypted, nested a thousand deep, ...: there is one thing to do about all of it.
        raise _damaged(path, str(error)) from error


class _Inert:
    """Base of what the unpickler hands out: it cannot be given attributes by the file."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("an object that has no state is given one")


class _Record:
    """Stands for an object of a class that is not loaded; keeps what the file gives it."""

    __slots__ = ("items", "state")

    def __new__(cls, *_arguments: object, **_keywords: object) -> _Record:
        record = super().__new__(cls)
        record.state = None
        record.items = {}
        return record

    def __init__(self, *_arguments: object, **_keywords: object) -> None:
        self.state: Any
        self.items: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:
        # (values, values of slots) is the form of objects that have both.
        self.state = state[0] if isinstance(state, tuple) and len(state) == 2 else state

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | int):
            raise pickle.UnpicklingError("a key is neither text nor a number")
        self.items[key] = value

    def __call__(self, *_arguments: object) -> _Record:
        # What would come of getattr(module, "function") is called too; go on and see what follows.
        return _Record()

    def append(self, value: Any) -> None:
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)

    def add(self, value: Any) -> None:
        self.append(value)


@dataclass(frozen=True)
class _Storage(_Inert):
    """A run of bytes in the file."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class _Reference(_Inert):
    """A tensor that has not been read yet."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Dtype(_Inert):
    """The class of a storage, which says what its bytes are."""

    dtype: torch.dtype


@dataclass(frozen=True)
class _Call(_Inert):
    """A function of ours under a name that the file may call."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> _Reference:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor has no storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor has an impossible shape")
    # Past the end of its storage lies the memory of something else.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if all(size) and last >= storage.count:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    return _Reference(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *_rest: Any) -> _Reference:
    if not isinstance(data, _Reference):
        raise pickle.UnpicklingError("a parameter has no tensor")
    return data


def _rebuild_from_type(function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    if not isinstance(function, _Call):
        raise pickle.UnpicklingError("a tensor is built by something unknown")
    return function(*arguments)


_CALLS: Final = {
    "collections.OrderedDict": _Call(OrderedDict),
    "builtins.set": _Call(set),
    "torch.Size": _Call(tuple),
    "torch._utils._rebuild_tensor": _Call(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Call(_rebuild_parameter),
    "torch._utils._rebuild_parameter_with_state": _Call(_rebuild_parameter),
    "torch._tensor._rebuild_from_type_v2": _Call(_rebuild_from_type),
}


class _Reader(pickle.Unpickler):
    """Runs a pickle's program on records; counts the names that it should not have asked for."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__(stream, encoding="utf-8")
        self.refused: set[str] = set()
        self.storages: dict[str, _Storage] = {}
        self._size = size
        self._kinds: dict[str, type[_Record]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name means here; nothing is imported."""
        full = f"{_RENAMED.get(module, module)}.{name}"
        if full in _CALLS:
            return _CALLS[full]
        if full == "builtins.getattr":
            return _Call(self._member)
        if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
            return _Dtype(_STORAGES[name])
        if not (
            full.startswith(_KNOWN)
            or full in _KNOWN_NAMES
            or (module == "torch" and name in _DTYPES)
        ):
            self.refused.add(full)
        if full not in self._kinds:
            # A class of this file's own: what the file does to it concerns no other.
            self._kinds[full] = type("_Record", (_Record,), {"__slots__": ()})
        return self._kinds[full]

    def _member(self, owner: Any, name: Any) -> _Record:
        """Stand for a member of an enumeration, as early Python 3.11 writes it; nothing is looked up."""
        if not (isinstance(owner, type) and issubclass(owner, _Record) and isinstance(name, str)):
            self.refused.add("builtins.getattr")
        return _Record()

    def persistent_load(self, pid: Any) -> Any:
        """Return what torch keeps outside of the pickle: a storage, or the source of a module."""
        if not isinstance(pid, tuple) or not pid:
            raise pickle.UnpicklingError("an outside object is unknown")
        if pid[0] == "module" and len(pid) == 4:
            return pid[1]
        if pid[0] != "storage" or len(pid) < 5 or not isinstance(pid[1], _Dtype):
            raise pickle.UnpicklingError("an outside object is unknown")
        key, count = str(pid[2]), pid[4]
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError("a storage is a view of another one")
        if type(count) is not int or not 0 <= count * pid[1].dtype.itemsize <= self._size:
            raise pickle.UnpicklingError("a storage is larger than the file")
        storage = _Storage(key, pid[1].dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError("a storage has two sizes")
        return storage


def _run(stream: IO[bytes], path: Path) -> tuple[Any, _Reader]:
    """Read one pickle from a stream and leave the stream after it."""
    start = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(start)
    try:
        _check_instructions(stream, size - start)
        stop = stream.tell()
        stream.seek(start)
        program = io.BytesIO(stream.read(stop - start))
    except Exception as error:
        raise _damaged(path, str(error)) from error
    reader = _Reader(program, path.stat().st_size)
    try:
        content = reader.load()
    except Exception as error:
        # Whatever a hostile program does to records ends here, and the names tell what it wanted.
        if not reader.refused:
            raise _damaged(path, str(error)) from error
        content = None
    if reader.refused:
        raise ArtifactError(
            f"{path} is refused: beside tensors and modules it asks for "
            f"{', '.join(sorted(reader.refused))}; nothing of it was run (save the model's state_dict "
            "as safetensors where it was made, and import that)"
        )
    return content, reader


def _check_instructions(stream: IO[bytes], size: int) -> None:
    for instruction, argument, _ in pickletools.genops(stream):
        # Extension codes are names that the process may have met before, so that nobody is asked.
        if instruction.name.startswith("EXT"):
            raise pickle.UnpicklingError(f"it uses extension code {argument}")
        # The unpickler reserves room up to the number.
        if "PUT" in instruction.name and isinstance(argument, int) and argument > size:
            raise pickle.UnpicklingError("it numbers more objects than it can hold")


class _Source(Protocol):
    content: Any

    def fill(self, storage: _Storage, buffer: memoryview) -> None:
        """Read the bytes of a storage."""


class _Archive:
    """A zip archive: ``NAME/data.pkl`` and one entry per storage, none of them compressed."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._zip = zipfile.ZipFile(stream)
        self._path = path
        names = set(self._zip.namelist())
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _damaged(path, "it is no archive of torch.save")
        if f"{roots[0]}constants.pkl" in names:
            raise ArtifactError(
                f"{path} is a program (TorchScript), not a file of weights; save its state_dict as "
                "safetensors where it was made, and import that"
            )
        if f"{roots[0]}byteorder" in names and self._read(f"{roots[0]}byteorder") != b"little":
            raise _damaged(path, "its numbers are big-endian")
        self._root = roots[0]
        self.content, _ = _run(io.BytesIO(self._read(f"{self._root}data.pkl")), path)

    def fill(self, storage: _Storage, buffer: memoryview) -> None:
        """Read the bytes of a storage."""
        name = f"{self._root}data/{storage.key}"
        with self._open(name) as entry:
            # The last read, of nothing, is what makes zipfile compare the checksum.
            if entry.readinto(buffer) != len(buffer) or entry.read(1):  # type: ignore[attr-defined]
                raise _damaged(self._path, f"{name} has another size than its tensors")

    def _read(self, name: str) -> bytes:
        with self._open(name) as entry:
            return entry.read()

    def _open(self, name: str) -> IO[bytes]:
        try:
            info = self._zip.getinfo(name)
        except KeyError as error:
            raise _damaged(self._path, f"{name} is not in it") from error
        if info.compress_type != zipfile.ZIP_STORED:
            raise _damaged(self._path, f"{name} is compressed, which torch.save never does")
        return self._zip.open(info)


class _Legacy:
    """Five pickles (magic number, version, machine, content, order of storages), then bytes."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._path = path
        if _run(stream, path)[0] != _MAGIC or _run(stream, path)[0] != _PROTOCOL:
            raise ArtifactError(f"{path} is no file of torch.save; give a checkpoint")
        machine, _ = _run(stream, path)
        if not isinstance(machine, dict) or not machine.get("little_endian", True):
            raise _damaged(path, "its numbers are big-endian")
        self.content, reader = _run(stream, path)
        order, _ = _run(stream, path)
        self._starts: dict[str, int] = {}
        for key in order if isinstance(order, list) else ():
            storage = reader.storages.get(str(key))
            (count,) = struct.unpack("<q", stream.read(8))
            if storage is None or count != storage.count:
                raise _damaged(path, f"storage {key} has another size than its tensors")
            self._starts[storage.key] = stream.tell()
            stream.seek(count * storage.dtype.itemsize, io.SEEK_CUR)

    def fill(self, storage: _Storage, buffer: memoryview) -> None:
        """Read the bytes of a storage."""
        if storage.key not in self._starts:
            raise _damaged(self._path, f"storage {storage.key} is not in it")
        self._stream.seek(self._starts[storage.key])
        if self._stream.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
            raise _damaged(self._path, f"storage {storage.key} is cut off")


class _Budget:
    """Counts what is walked: a few objects that contain each other make endless names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _MOST_NODES

    def spend(self) -> None:
        """Take note of one object."""
        self._left -= 1
        if self._left < 0:
            raise _damaged(self._path, "its objects contain each other")


def _named(content: Any, path: Path) -> dict[str, _Reference]:
    """Return the tensors below an object by their names, which must be different ones."""
    found: dict[str, _Reference] = {}
    for name, reference in _walk(content, (), _Budget(path), frozenset()):
        if name in found:
            raise _damaged(path, f"two of its tensors are called {name!r}")
        found[name] = reference
    return found


def _walk(
    value: Any, place: tuple[str, ...], budget: _Budget, above: frozenset[int]
) -> Iterator[tuple[str, _Reference]]:
    """Yield the tensors below an object with their names."""
    budget.spend()
    if isinstance(value, _Reference):
        yield ".".join(place), value
        return
    if id(value) in above:
        return
    above |= {id(value)}
    for name, part in _parts(value):
        yield from _walk(part, (*place, str(name)), budget, above)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what lies directly in an object, with its name there."""
    # dict.items: the file may have given a mapping another attribute of that name.
    if isinstance(value, _Record):
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


def _tensor(reference: _Reference, source: _Source, path: Path) -> torch.Tensor:
    storage = reference.storage
    buffer = bytearray(storage.count * storage.dtype.itemsize)
    if not buffer:
        return torch.empty(reference.size, dtype=storage.dtype)
    source.fill(storage, memoryview(buffer))
    whole = torch.frombuffer(buffer, dtype=storage.dtype)
    return torch.as_strided(whole, reference.size, reference.stride, reference.offset).clone(
        memory_format=torch.contiguous_format
    )


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({reason or 'it ends too early'}); fetch it again")
