"""One pass over base and experts, window by window, in buffers that are used again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch

from taskgrid.errors import ConfigError, LineageError
from taskgrid.lattice import canonical_subset
from taskgrid.merging.base import MergeContext, Merger, Prepared
from taskgrid.merging.inputs import Inputs, is_vector
from taskgrid.options import Options as PluginOptions
from taskgrid.store.shards import TensorReader, TensorSpec
from taskgrid.store.sink import Buffer, Sink

Scope = Literal["element", "tensor", "model"]
"""What a method must see at once: ``element``, the same weight of base and vectors; ``tensor``, one
tensor of each; ``model``, everything (a global trim, a layer's depth)."""

_SLICE = 32_768
"""Elements that are merged at a time: operands stay in a core's cache, and torch does not split so
few over threads, which would cost more than it brings beside the threads that write."""

_LONGEST = 1 << 18
"""Elements that are read at a time at most; longer windows read no faster."""

_SLACK = 6 << 20
"""Memory of temporary slices, thread stacks and headers of the usual size."""

_SMALLEST = 1 << 16
"""Bytes of the smallest buffer: tensors that are no weights are copied through it."""


@dataclass(frozen=True)
class Recipe:
    """How experts are merged.

    Attributes:
        merger: the method.
        options: its options.
        seed: what its random draws come from.
    """

    merger: Merger
    options: PluginOptions
    seed: int = 0

    @property
    def scope(self) -> Scope:
        """What the method must see at once; one that does not say sees the whole model.

        A sum of task vectors with one weight each is elementwise whatever the weights are.
        """
        fallback: Scope = "element" if hasattr(self.merger, "weights") else "model"
        declared: Scope = getattr(self.merger, "scope", fallback)
        return declared


@dataclass(frozen=True)
class Frame:
    """What stands around the merged tensors in the files that are written.

    Attributes:
        prefix: begins the names of merged tensors.
        others: tensors to write as they are.
        metadata: texts for the headers.
    """

    prefix: str = ""
    others: Mapping[str, torch.Tensor] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """Sizes of the buffers.

    Attributes:
        length: elements of a tensor that are read at a time.
        nbytes: bytes of a buffer for as many elements in the widest dtype.
        direct: whether experts are read to where their vectors will be, all of it being float32.
    """

    length: int
    nbytes: int
    direct: bool

    @classmethod
    def within(cls, max_bytes: int, inputs: Inputs, recipe: Recipe, threads: int) -> Window:
        """Return the largest useful window whose buffers, all together, stay below a bound.

        Args:
            max_bytes: the bound.
            inputs: what is merged.
            recipe: how.
            threads: threads of the sink.

        Raises:
            ConfigError: if the smallest window does not fit; names the memory it needs.
        """
        weights = [spec for spec in inputs.base.specs.values() if spec.floating]
        widest = max((spec.torch_dtype.itemsize for spec in weights), default=4)
        direct = all(spec.dtype == "F32" for spec in weights)
        # Base, outputs, an expert that must be converted; the vectors; two float64 of `prepare`.
        states = 1 + Sink.buffers(threads) + (not direct)
        per_element = widest * states + 4 * len(inputs.experts) + 16
        if recipe.scope == "element":
            smallest, what = _SLICE, f"{len(inputs.experts)} experts"
            room = (max_bytes - _SLACK) // per_element
            length = max(smallest, min(room // _SLICE * _SLICE, _LONGEST))
        else:
            length = smallest = max((spec.numel for spec in weights), default=1)
            what = f"the largest tensor of {len(inputs.experts)} experts at once"
            per_element += 24  # `prepare` and `apply` compute with copies in float64
        needed = _SLACK + smallest * per_element
        if needed > max_bytes:
            raise ConfigError(
                f"merge method {recipe.merger.name!r} needs {needed / 1e6:.1f} MB of memory for {what}, "
                f"but max_bytes allows {max_bytes / 1e6:.1f} MB; raise it"
            )
        return cls(length, max(length * widest, _SMALLEST), direct)


class Pass:
    """Reads base and experts once and writes every output.

    Args:
        inputs: what is merged.
        recipe: how.
        points: tasks and lambda of each output, in the order of the sink's states.
        window: sizes of the buffers.
        sink: where merged tensors go; its buffers have the window's size.
        frame: what stands around them.
    """

    def __init__(
        self,
        inputs: Inputs,
        recipe: Recipe,
        points: Sequence[tuple[Sequence[str], float]],
        window: Window,
        sink: Sink,
        frame: Frame,
    ) -> None:
        self._recipe, self._window, self._sink, self._frame = recipe, window, sink, frame
        self._base = TensorReader(inputs.base)
        self._experts = [
            _Expert(row, task, TensorReader(found), is_vector(found))
            for row, (task, found) in enumerate(inputs.experts.items())
        ]
        # Outputs of one subset share its preparation.
        self._subsets: dict[tuple[str, ...], list[tuple[int, float]]] = {}
        for index, (tasks, scale) in enumerate(points):
            self._subsets.setdefault(canonical_subset(tasks), []).append((index, scale))
        self._raw = np.empty(window.nbytes, np.uint8)
        self._other = np.empty(_SMALLEST if window.direct else window.nbytes, np.uint8)
        self._vectors = torch.empty(len(self._experts), window.length)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        for reader in (self._base, *(expert.reader for expert in self._experts)):
            self._opened.enter_context(reader)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    def run(self, layout: Sequence[TensorSpec]) -> None:
        """Write every tensor of every output.

        Raises:
            LineageError: if an expert changes a tensor that is no weight, or is not finite.
            ArtifactError: if a file cannot be read or written.
        """
        specs = self._base.checkpoint.specs
        for out in layout:
            if out.name in self._frame.others:
                self._sink.send_all(out.name, 0, _bytes_of(self._frame.others[out.name]))
                continue
            spec = specs[out.name.removeprefix(self._frame.prefix)]
            if not spec.floating:
                self._copy(spec)
                continue
            for start in range(0, spec.numel, self._window.length):
                self._merge(spec, start, min(self._window.length, spec.numel - start))
        self._sink.drain()

    def _merge(self, spec: TensorSpec, start: int, count: int) -> None:
        base = _read(self._base, self._raw, spec, start, count)
        for expert in self._experts:
            self._read_vector(expert, spec, base, start)
        whole = self._recipe.scope == "tensor"
        pieces = [slice(0, count)] if whole else list(_slices(count))
        shape = spec.shape if whole else (-1,)
        bases = [{spec.name: base[piece].view(shape)} for piece in pieces]
        size = spec.torch_dtype.itemsize
        for tasks, members in self._subsets.items():
            ready = [
                self._prepare(tasks, state, piece)
                for state, piece in zip(bases, pieces, strict=True)
            ]
            for index, scale in members:
                buffer = self._sink.take()
                merged = torch.from_numpy(buffer[: count * size]).view(spec.torch_dtype)
                for state, piece, prepared in zip(bases, pieces, ready, strict=True):
                    self._recipe.merger.apply(
                        state,
                        prepared,
                        scale,
                        self._recipe.options,
                        out={spec.name: merged[piece].view(shape)},
                    )
                name = self._frame.prefix + spec.name
                self._sink.send(index, name, start * size, buffer, count * size)

    def _prepare(
        self, tasks: tuple[str, ...], base: Mapping[str, torch.Tensor], piece: slice
    ) -> Prepared:
        ((name, weights),) = base.items()
        vectors = {
            expert.task: {name: self._vectors[expert.row, piece].view(weights.shape)}
            for expert in self._experts
            if expert.task in tasks
        }
        context = MergeContext(base, vectors, self._recipe.options, self._recipe.seed)
        return self._recipe.merger.prepare(context)

    def _read_vector(
        self, expert: _Expert, spec: TensorSpec, base: torch.Tensor, start: int
    ) -> None:
        """Put a window of tau_t into its row: bit for bit what ``vectors.subtract`` computes."""
        vector = self._vectors[expert.row, : len(base)]
        if expert.vector or self._window.direct:
            expert.reader.read_into(_bytes_of(vector), spec.name, start * vector.itemsize)
            after = vector
        else:
            after = _read(expert.reader, self._other, spec, start, len(base))
        for piece in _slices(len(base)):
            tau = vector[piece]
            if not expert.vector and spec.dtype == "F32":
                # This is the float64 difference rounded to float32: 53 bits are more than twice 24,
                # so rounding twice changes nothing.
                torch.sub(after[piece], base[piece], out=tau)
            elif not expert.vector:
                tau.copy_(after[piece].double() - base[piece].double())
            if not math.isfinite(float(tau.sum())) and not torch.isfinite(tau).all():
                raise LineageError(
                    f"expert {expert.task!r} minus the base is not finite in {spec.name!r}; "
                    "its training diverged"
                )

    def _copy(self, spec: TensorSpec) -> None:
        for offset in range(0, spec.nbytes, _SMALLEST):
            mine = self._raw[: min(_SMALLEST, spec.nbytes - offset)]
            theirs = self._other[: len(mine)]
            self._base.read_into(mine.data, spec.name, offset)
            for expert in self._experts:
                if expert.vector:
                    continue
                expert.reader.read_into(theirs.data, spec.name, offset)
                if not np.array_equal(mine, theirs):
                    raise LineageError(
                        f"expert {expert.task!r} changes {spec.name!r} ({spec.dtype}), "
                        "which is not a weight"
                    )
            self._sink.send_all(self._frame.prefix + spec.name, offset, mine.data)


@dataclass(frozen=True)
class _Expert:
    row: int
    task: str
    reader: TensorReader
    vector: bool


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _SLICE, count)) for start in range(0, count, _SLICE))


def _read(
    reader: TensorReader, buffer: Buffer, spec: TensorSpec, start: int, count: int
) -> torch.Tensor:
    size = spec.torch_dtype.itemsize
    window = buffer[: count * size]
    reader.read_into(window.data, spec.name, start * size)
    return torch.from_numpy(window).view(spec.torch_dtype)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
