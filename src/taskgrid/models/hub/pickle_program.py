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
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NoReturn, TypeAlias

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
    "torch.optim.",
    "torch.amp.grad_scaler.",
    "torch.cuda.amp.grad_scaler.",
    "torchvision.",
    "open_clip.",
    "clip.model.",
    "timm.",
    "transformers.models.",
    "transformers.activations.",
    "transformers.configuration_utils.",
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "yacs.config.",
    "easydict.",
    "src.",
    "modeling.",
    "PIL.",
)
# Values that lie beside weights: scores, dates, paths, settings. They become records, and are left out.
_VALUES: Final = re.compile(
    r"argparse\.Namespace|functools\.partial|types\.SimpleNamespace|typing\.Any"
    r"|torch\.(?:_tensor\.)?Tensor|torch\.(?:device|memory_format|layout)|torch\.serialization\._get_layout"
    r"|builtins\.(?:dict|list|tuple|int|long|float|bool|str|unicode|bytes|bytearray|complex|x?range|slice|object)"
    r"|pathlib\.(?:_local\.)?(?:Pure)?(?:Posix|Windows)?Path"
    r"|datetime\.(?:datetime|date|time|timedelta|timezone)"
    r"|decimal\.Decimal|fractions\.Fraction|uuid\.(?:UUID|SafeUUID)"
    r"|numpy\.(?:dtype|ndarray|(?:u?int|float|complex|bool|str|bytes)_?\d*)"
    r"|numpy\._?core\.multiarray\.(?:scalar|_reconstruct)|numpy\._?core\.numeric\._frombuffer"
    r"|numpy\.dtypes\.\w+DType"
    r"|numpy\.random\.(?:_pickle\.__\w+_ctor|_\w+\.[A-Z]\w+|bit_generator\.(?:__pyx_unpickle_)?SeedSequence)"
)


_MOST_SIDES: Final = 64
_MOST_OBJECTS: Final = 2_000_000
_MOST_NAMES: Final = 10_000
_LONGEST_NAME: Final = 200
_LONGEST_LIST: Final = 4000
_MOST_ELEMENTS: Final = 1 << 60


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
    """A run of bytes in the file; a plain pickle has them in its program."""

    key: str
    dtype: torch.dtype
    count: int
    held: memoryview | None = field(default=None, compare=False, repr=False)


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
    fits = len(size) == len(stride) <= _MOST_SIDES
    if not fits or not all(
        type(n) is int and 0 <= n < _MOST_ELEMENTS for n in (offset, *size, *stride)
    ):
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


def _mapping(*arguments: Any) -> dict[Any, Any]:
    # A defaultdict is made from its factory and then filled, a Counter from a mapping.
    return dict(arguments[0]) if arguments and isinstance(arguments[0], dict) else {}


def _items(*arguments: Any) -> list[Any]:
    # A deque is filled after it was made.
    return list(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else []


_CONTAINERS: Final[Mapping[str, Callable[..., Any]]] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "collections.deque": _items,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "torch.Size": tuple,
}
_CALLS: Final = {
    "torch._utils._rebuild_tensor": _Call(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Call(_rebuild_parameter),
    "torch._utils._rebuild_parameter_with_state": _Call(_rebuild_parameter),
    "torch._tensor._rebuild_from_type_v2": _Call(_rebuild_from_type),
}


Embedded: TypeAlias = Callable[[Any], Storage]


class _Reader(pickle.Unpickler):
    """Runs a pickle's program on records; counts the names that it should not have asked for."""

    def __init__(self, stream: IO[bytes], size: int, embedded: Embedded | None) -> None:
        super().__init__(stream, encoding="utf-8")
        self.refused: set[str] = set()
        self.storages: dict[str, Storage] = {}
        self._size = size
        self._embedded = embedded
        self._kinds: dict[str, type[Record]] = {}
        self._names: dict[type[Record], str] = {}
        self._encoded: dict[int, tuple[str, bytes]] = {}
        self._contained = 0

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name means here; nothing is imported."""
        full = f"{_RENAMED.get(module, module)}.{name}"
        if len(full) > _LONGEST_NAME or len(self._kinds) > _MOST_NAMES:
            raise pickle.UnpicklingError("it asks for names without end")
        if full in _CALLS:
            return _CALLS[full]
        if full in _CONTAINERS:
            return _Call(partial(self._contain, _CONTAINERS[full]))
        if full == "builtins.getattr":
            return _Call(self._member)
        if full == "_codecs.encode":
            return _Call(self._bytes)
        if full == "copyreg._reconstructor":
            return _Call(self._reconstructed)
        if full == "torch.storage._load_from_bytes" and self._embedded is not None:
            return _Call(self._embedded)
        if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
            return _Dtype(_STORAGES[name])
        if not (
            full.startswith(_KNOWN)
            or _VALUES.fullmatch(full)
            or (module == "torch" and name in _DTYPES)
        ):
            self.refused.add(full)
        if full not in self._kinds:
            # A class of this file's own: what the file does to it concerns no other.
            kind = type("_Record", (Record,), {"__slots__": ()})
            self._kinds[full], self._names[kind] = kind, full
        return self._kinds[full]

    def _contain(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """Make a container; what it is filled from may have been written once and be named often."""
        self._contained += sum(len(each) for each in arguments if isinstance(each, Sized))
        if self._contained > _MOST_OBJECTS:
            raise pickle.UnpicklingError("it copies more objects than a checkpoint holds")
        return make(*arguments)

    def _member(self, owner: Any, name: Any) -> Record:
        """Stand for a member of an enumeration, as early Python 3.11 writes it; nothing is looked up."""
        known = isinstance(owner, type) and self._names.get(owner, "")
        if not (known and known.startswith(_KNOWN) and isinstance(name, str)):
            self.refused.add("builtins.getattr")
            if known:
                self.refused.add(f"{known}.{name}"[:_LONGEST_NAME])
        return Record()

    def _bytes(self, text: Any, encoding: Any = None) -> Any:
        """Return bytes as protocols 0 to 2 write them, each once however often the program asks."""
        if not isinstance(text, str) or encoding != "latin1":
            return Record()
        # The text is kept with its bytes, so that no other can have its identity.
        if id(text) not in self._encoded:
            self._encoded[id(text)] = text, text.encode("latin1")
        return self._encoded[id(text)][1]

    def _reconstructed(self, kind: Any, *_rest: Any) -> Any:
        """Make an object as protocols 0 and 1 write it, of a kind that may be made."""
        known = isinstance(kind, type) and self._names.get(kind, "")
        if not known or known in self.refused:
            self.refused.add("copyreg._reconstructor")
        return Record() if not known else kind()

    def persistent_load(self, pid: Any) -> Any:
        """Return what torch keeps outside of the pickle: a storage, or the source of a module."""
        if not isinstance(pid, tuple) or not pid:
            raise pickle.UnpicklingError("an outside object is unknown")
        if pid[0] == "module" and len(pid) == 4:
            return pid[1]
        if pid[0] != "storage" or len(pid) < 5 or not isinstance(pid[1], _Dtype):
            raise pickle.UnpicklingError("an outside object is unknown")
        key, count = str(pid[2]) if isinstance(pid[2], str | int) else "", pid[4]
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError("a storage is a view of another one")
        if type(count) is not int or not 0 <= count * pid[1].dtype.itemsize <= self._size:
            raise pickle.UnpicklingError("a storage is larger than the file")
        storage = Storage(key, pid[1].dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError("a storage has two sizes")
        return storage


def run_program(
    stream: IO[bytes], path: Path, embedded: Embedded | None = None
) -> tuple[Any, dict[str, Storage]]:
    """Run one pickle from a stream and leave the stream after it.

    Args:
        stream: where it begins.
        path: the file that it is part of.
        embedded: reads a storage that lies in the program, as a file of ``torch.save`` of its own.

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
    except Exception as error:
        raise damaged(path, str(error)) from error
    reader = _Reader(stream, path.stat().st_size, embedded)
    try:
        content = reader.load()
    except ArtifactError:
        raise
    except Exception as error:
        # Whatever a hostile program does to records ends here, and the names tell what it wanted.
        if not reader.refused:
            raise damaged(path, str(error)) from error
        content = None
    if reader.refused:
        raise ArtifactError(
            f"{path} cannot be read as tensors alone: beside tensors and modules it asks for "
            f"{', '.join(sorted(reader.refused))[:_LONGEST_LIST]}; nothing of it was run (save the "
            "model's state_dict as safetensors where it was made, and import that)"
        )
    stream.seek(stop)
    return content, reader.storages


def _check_instructions(stream: IO[bytes], size: int) -> None:
    for number, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        # An instruction of one byte makes an object of a hundred.
        if number > _MOST_OBJECTS:
            raise pickle.UnpicklingError("it makes more objects than a checkpoint holds")
        # Extension codes are names that the process may have met before, so that nobody is asked.
        if instruction.name.startswith("EXT"):
            raise pickle.UnpicklingError(f"it uses extension code {argument}")
        # The unpickler reserves room up to the number.
        if "PUT" in instruction.name and isinstance(argument, int) and argument > size:
            raise pickle.UnpicklingError("it numbers more objects than it can hold")


def damaged(path: Path, reason: str) -> ArtifactError:
    """Return the error of a file that is not as it was written."""
    line = " ".join(reason.split())[:_LONGEST_NAME]
    return ArtifactError(f"{path} is damaged ({line or 'it ends too early'}); fetch it again")
