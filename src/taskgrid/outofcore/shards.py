"""Safetensors files as byte ranges: what lies where, read into buffers that the caller owns.

A checkpoint is one file or several with an index. Nothing is memory-mapped: pages of a map count as
resident memory of the process that touched them, bytes read into a reused buffer do not add up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import torch

from taskgrid.errors import ArtifactError
from taskgrid.store.foreign import Kind, check_no_pointer, kind_of
from taskgrid.store.index import index_path, read_index, shard_of, whole
from taskgrid.store.makers import mend
from taskgrid.store.weights import HEADER, Lineage, parse_lineage

DTYPES = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U64": torch.uint64,
        "U32": torch.uint32,
        "U16": torch.uint16,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
"""The format's names of the dtypes that are read and written."""

_FORMAT_NAMES = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})

INDEX_NAME = "model.safetensors.index.json"
_USUAL_NAMES = (INDEX_NAME, "model.safetensors", "open_clip_model.safetensors")
_LARGEST_HEADER = 16 << 20
"""Bytes: a hundred thousand tensors; as JSON that is meant to fill memory it takes less than a GiB."""
_MOST_AXES = 64
_LARGEST = 1 << 63


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its values.

    Attributes:
        name: its key.
        dtype: its dtype, as the format calls it.
        shape: its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> TensorSpec:
        """Describe a tensor."""
        return cls(name, _FORMAT_NAMES[tensor.dtype], tuple(tensor.shape))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch calls it."""
        return DTYPES[self.dtype]

    @property
    def floating(self) -> bool:
        """Whether it holds weights, and not indices or masks."""
        return self.torch_dtype.is_floating_point

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.numel * self.torch_dtype.itemsize


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes:
        spec: the tensor.
        file: the file that holds it.
        start: offset of its first byte in the file.
    """

    spec: TensorSpec
    file: Path
    start: int


@dataclass(frozen=True)
class WeightFiles:
    """The tensors of a checkpoint, one file or several, in the order of their bytes.

    Attributes:
        path: what it was opened by.
        places: tensors by name, in file order, one file after the other.
        metadata: the free texts in its headers; the lineage is that of the whole.
    """

    path: Path
    places: Mapping[str, Place]
    metadata: Mapping[str, str]

    @classmethod
    def open(cls, path: str | Path) -> WeightFiles:
        """Read the headers of a checkpoint.

        Args:
            path: a safetensors file, an index of shards, or a folder that holds either.

        Raises:
            ArtifactError: if a file is missing, damaged or of another format, or holds a dtype that
                is not supported.
        """
        found, kind = _locate(Path(path))
        if kind != "index":
            return cls(found, *_read_header(found))
        index = read_index(found)
        places: dict[str, Place] = {}
        metadata = {key: text for key, text in index.metadata.items() if key == HEADER}
        for file in index.files:
            held, texts = _read_header(file)
            places |= {
                name: place for name, place in held.items() if index.shards.get(name) == file.name
            }
            # A shard's lineage is its own.
            metadata = {key: text for key, text in texts.items() if key != HEADER} | metadata
        for name, file_name in index.shards.items():
            if name not in places:
                raise ArtifactError(
                    f"{found} says that {file_name} holds {name!r}, but it does not; "
                    "fetch or build the checkpoint again"
                )
        return cls(found, places, metadata)

    @cached_property
    def specs(self) -> Mapping[str, TensorSpec]:
        """The tensors by name, in file order."""
        return {name: place.spec for name, place in self.places.items()}

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self.specs.values())

    @cached_property
    def lineage(self) -> Lineage:
        """What the checkpoint was made from; empty where another program wrote it.

        Raises:
            ArtifactError: if it cannot be read.
        """
        return parse_lineage(self.path, self.metadata[HEADER]) if HEADER in self.metadata else {}


class TensorReader:
    """Reads ranges of a checkpoint's tensors; holds one file open at a time.

    Args:
        checkpoint: what to read.
    """

    def __init__(self, checkpoint: WeightFiles) -> None:
        self.checkpoint = checkpoint
        self._file: Path | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def read_into(self, buffer: memoryview, name: str, offset: int = 0) -> None:
        """Fill a buffer with bytes of a tensor.

        Args:
            buffer: writable bytes; all of them are filled.
            name: the tensor.
            offset: the first byte to read, counted from the tensor's start.

        Raises:
            ArtifactError: if the file ends too early or cannot be read.
        """
        place = self.checkpoint.places[name]
        try:
            self._open(place.file)
            read_exactly(self._descriptor, buffer, place.start + offset, place.file)
        except OSError as error:
            raise ArtifactError(f"cannot read {place.file}: {error.strerror}") from error

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor.

        Raises:
            ArtifactError: as ``read_into``.
        """
        spec = self.checkpoint.specs[name]
        held = torch.empty(spec.nbytes, dtype=torch.uint8)
        self.read_into(held.numpy().data, name)
        return held.view(spec.torch_dtype).reshape(spec.shape)

    def _open(self, file: Path) -> None:
        if file == self._file:
            return
        self._close()
        self._descriptor = os.open(file, os.O_RDONLY)
        self._file = file
        if hasattr(os, "posix_fadvise"):  # not on every system; without it reading ahead is shorter
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._descriptor)
            self._file = None


def read_exactly(descriptor: int, buffer: memoryview, offset: int, file: Path) -> None:
    """Fill a buffer from a place in an open file.

    Raises:
        ArtifactError: if the file ends before the buffer is full.
        OSError: if the operating system cannot read.
    """
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if count == 0:
            raise _damaged(file, "it ends too early")
        done += count


def _locate(path: Path) -> tuple[Path, Kind]:
    if path.is_dir():
        found = _held(path)
        if len(found) != 1:
            raise ArtifactError(
                f"{path} holds {len(found)} safetensors files and no {INDEX_NAME}; name the file"
            )
        path = found[0]
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    kind = kind_of(path)
    if kind == "pickle":
        raise ArtifactError(
            f"{path} is not a .safetensors file or an index of such; convert it first "
            "(taskgrid never unpickles)"
        )
    whole(path)  # A shard alone may be read, but not one that lost its index.
    return path, kind


def _held(folder: Path) -> list[Path]:
    """Return what a folder may mean: the first usual name, or indexes and files of no index."""
    usual = [folder / name for name in _USUAL_NAMES if (folder / name).is_file()]
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    alone = [
        file
        for file in sorted(folder.glob("*.safetensors"))
        if index_path(folder / str(shard_of(file))) not in indexes
    ]
    return usual[:1] or [*indexes, *alone]


def _read_header(path: Path) -> tuple[dict[str, Place], dict[str, str]]:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                check_no_pointer(path)
                raise _damaged(path, "it has no safetensors header")
            if length > _LARGEST_HEADER:
                raise _damaged(path, f"its header of {length} bytes is no list of tensors")
            header = json.loads(stream.read(length))
        metadata = {str(k): str(v) for k, v in (header.pop("__metadata__", None) or {}).items()}
        begin = 8 + length
        spans = {name: _place(path, begin, name, entry) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header cannot be read: {error!r:.200}") from error
    # Empty tensors share their offset with the next one: the end breaks the tie.
    ordered = sorted(spans.values(), key=lambda p: (p.start, p.start + p.spec.nbytes))
    end = begin
    for place in ordered:
        if place.start != end:
            raise _damaged(
                path, f"{place.spec.name!r:.200} does not begin where the tensor before ends"
            )
        end += place.spec.nbytes
    if end != size:
        raise _damaged(path, f"it has {size} bytes, its header speaks of {end}")
    return {place.spec.name: place for place in ordered}, metadata


def _place(path: Path, begin: int, name: str, entry: Mapping[str, Any]) -> Place:
    if entry["dtype"] not in DTYPES:
        raise ArtifactError(
            f"{path} holds {name!r:.200} as {entry['dtype']:.40}, which is not supported; there are: "
            f"{', '.join(DTYPES)}"
        )
    start, end = entry["data_offsets"]
    sides = entry["shape"]
    # Also no true and no 2.0, which would do as numbers here and fail where a tensor is made.
    counted = all(type(side) is int and 0 <= side < _LARGEST for side in (*sides, start, end))
    if not counted or len(sides) > _MOST_AXES:
        raise _damaged(
            path, f"{name!r:.200} has no shape and place in whole numbers that a tensor has"
        )
    spec = TensorSpec(name, entry["dtype"], tuple(sides))
    if end - start != spec.nbytes:
        raise _damaged(
            path, f"{name!r:.200} has {end - start} bytes, its shape needs {spec.nbytes}"
        )
    # One without elements may have sides of any length, which torch cannot hold.
    if prod(max(side, 1) for side in sides) >= _LARGEST:
        raise _damaged(path, f"{name!r:.200} has sides that no tensor has")
    return Place(spec, path, begin + start)


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({reason}); {mend(path, 'fetch or build it again')}")
