"""Running the program that a pickle is on objects that do nothing.

A pickle names functions and has them called. Here no name is ever looked up. A short list of names
that rebuild tensors and plain containers is given a meaning of our own; names of known kinds of
modules (torch.nn, open_clip, ...) become *records*, objects that keep what they are given and do
nothing; any other name makes the file refused, with all such names in the message.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn

import torch

from taskgrid.errors import ArtifactError

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


class _Inert:
    """Base of what the unpickler hands out: it cannot be given attributes by the file."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("an object that has no state is given one")


class Record:
    """Stands for an object of a class that is not loaded; keeps what the file gives it."""

    __slots__ = ("items", "state")

    def __new__(cls, *_arguments: object, **_keywords: object) -> Record:
        """Make one of whatever it is made of."""
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

    def __call__(self, *_arguments: object) -> Record:
        """Return another one."""
        # What would come of getattr(module, "function") is called too; go on and see what follows.
        return Record()

    def append(self, value: Any) -> None:
        """Keep a value under its number."""
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        """Keep values under their numbers."""
        for value in values:
            self.append(value)

    def add(self, value: Any) -> None:
        """Keep a value under its number, as a set's objects have no names."""
        self.append(value)


@dataclass(frozen=True)
class Storage(_Inert):
    """A run of bytes in the file."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class UnreadTensor(_Inert):
    """A tensor that has not been read yet."""

    storage: Storage
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


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> UnreadTensor:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor has no storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor has an impossible shape")
    # Past the end of its storage lies the memory of something else.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if all(size) and last >= storage.count:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    return UnreadTensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *_rest: Any) -> UnreadTensor:
    if not isinstance(data, UnreadTensor):
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
        self.storages: dict[str, Storage] = {}
        self._size = size
        self._kinds: dict[str, type[Record]] = {}

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
            self._kinds[full] = type("_Record", (Record,), {"__slots__": ()})
        return self._kinds[full]

    def _member(self, owner: Any, name: Any) -> Record:
        """Stand for a member of an enumeration, as early Python 3.11 writes it; nothing is looked up."""
        if not (isinstance(owner, type) and issubclass(owner, Record) and isinstance(name, str)):
            self.refused.add("builtins.getattr")
        return Record()

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
        storage = Storage(key, pid[1].dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError("a storage has two sizes")
        return storage


def run_program(stream: IO[bytes], path: Path) -> tuple[Any, dict[str, Storage]]:
    """Run one pickle from a stream and leave the stream after it.

    Args:
        stream: where it begins.
        path: the file that it is part of.

    Returns:
        What the program made, and the storages that it spoke of, by key.

    Raises:
        ArtifactError: if it asks for anything but tensors, containers and modules, or is damaged.
    """
    start = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(start)
    try:
        _check_instructions(stream, size - start)
        stop = stream.tell()
        stream.seek(start)
        program = io.BytesIO(stream.read(stop - start))
    except Exception as error:
        raise damaged(path, str(error)) from error
    reader = _Reader(program, path.stat().st_size)
    try:
        content = reader.load()
    except Exception as error:
        # Whatever a hostile program does to records ends here, and the names tell what it wanted.
        if not reader.refused:
            raise damaged(path, str(error)) from error
        content = None
    if reader.refused:
        raise ArtifactError(
            f"{path} is refused: beside tensors and modules it asks for "
            f"{', '.join(sorted(reader.refused))}; nothing of it was run (save the model's state_dict "
            "as safetensors where it was made, and import that)"
        )
    return content, reader.storages


def _check_instructions(stream: IO[bytes], size: int) -> None:
    for instruction, argument, _ in pickletools.genops(stream):
        # Extension codes are names that the process may have met before, so that nobody is asked.
        if instruction.name.startswith("EXT"):
            raise pickle.UnpicklingError(f"it uses extension code {argument}")
        # The unpickler reserves room up to the number.
        if "PUT" in instruction.name and isinstance(argument, int) and argument > size:
            raise pickle.UnpicklingError("it numbers more objects than it can hold")


def damaged(path: Path, reason: str) -> ArtifactError:
    """Return the error of a file that is not as it was written."""
    return ArtifactError(f"{path} is damaged ({reason or 'it ends too early'}); fetch it again")
