"""Windows of base and task vectors, read by a thread while the window before is merged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch

from taskgrid.errors import LineageError
from taskgrid.outofcore.inputs import Inputs, is_vector
from taskgrid.outofcore.shards import TensorReader, TensorSpec
from taskgrid.outofcore.sink import Buffer
from taskgrid.outofcore.statistics import Held, Statistics
from taskgrid.outofcore.windows import SLOTS, Window, slices


@dataclass(frozen=True)
class Loaded:
    """A window in memory; gone when the next one is asked for.

    Attributes:
        spec: the tensor it is cut from.
        start: its first element.
        base: theta_0 there, flat.
        vectors: task -> tau_t there, flat, float32; empty where the tensor is no weight.
        statistics: what statistics say of it.
    """

    spec: TensorSpec
    start: int
    base: torch.Tensor
    vectors: Mapping[str, torch.Tensor]
    statistics: Held


class WindowReader:
    """Reads base and experts once, in buffers that are used again.

    Args:
        inputs: what is merged.
        window: sizes of the buffers.
        statistics: what is read beside the weights.
    """

    def __init__(self, inputs: Inputs, window: Window, statistics: Statistics) -> None:
        self._window, self._statistics = window, statistics
        self._base = TensorReader(inputs.base)
        self._experts = [
            _Expert(task, TensorReader(found), is_vector(found))
            for task, found in inputs.experts.items()
        ]
        self._slots = [
            _Slot(np.empty(window.nbytes, np.uint8), torch.empty(len(self._experts), window.length))
            for _ in range(SLOTS)
        ]
        # What experts are read to that must be converted or compared.
        self._other = np.empty(window.other_bytes, np.uint8)
        self._thread = ThreadPoolExecutor(1, "reader")
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
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._opened.close()

    def windows(self, specs: Iterable[TensorSpec]) -> Iterator[Loaded]:
        """Yield the windows of tensors, one after the other.

        Raises:
            LineageError: if an expert changes a tensor that is no weight, or is not finite.
            ArtifactError: if a file cannot be read.
        """
        slots = itertools.cycle(self._slots)
        coming: Future[Loaded] | None = None
        for spec in specs:
            for start, count in self._window.spans(spec):
                following = self._thread.submit(self._load, spec, start, count, next(slots))
                if coming is not None:
                    yield coming.result()
                coming = following
        if coming is not None:
            yield coming.result()

    def _load(self, spec: TensorSpec, start: int, count: int, slot: _Slot) -> Loaded:
        base = _read(self._base, slot.base, spec, start, count)
        if not spec.floating:
            self._compare(spec, start, base)
            return Loaded(spec, start, base, {}, Held())
        rows = {
            expert.task: row[:count] for expert, row in zip(self._experts, slot.rows, strict=True)
        }
        for expert in self._experts:
            self._load_vector(expert, spec, start, base, rows[expert.task])
        return Loaded(spec, start, base, rows, self._statistics.read(spec, start, count))

    def _load_vector(
        self,
        expert: _Expert,
        spec: TensorSpec,
        start: int,
        base: torch.Tensor,
        vector: torch.Tensor,
    ) -> None:
        """Read a window of tau_t: bit for bit what ``vectors.subtract`` computes."""
        if expert.vector or self._window.direct:
            expert.reader.read_into(vector.numpy().view(np.uint8).data, spec.name, 4 * start)
            after = vector
        else:
            after = _read(expert.reader, self._other, spec, start, len(vector))
        for piece in slices(len(vector)):
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

    def _compare(self, spec: TensorSpec, start: int, base: torch.Tensor) -> None:
        for expert in self._experts:
            if expert.vector:
                continue
            after = _read(expert.reader, self._other, spec, start, len(base))
            if not torch.equal(after.view(torch.uint8), base.view(torch.uint8)):
                raise LineageError(
                    f"expert {expert.task!r} changes {spec.name!r} ({spec.dtype}), "
                    "which is not a weight"
                )


@dataclass(frozen=True)
class _Expert:
    task: str
    reader: TensorReader
    vector: bool


@dataclass(frozen=True)
class _Slot:
    base: Buffer
    rows: torch.Tensor


def _read(
    reader: TensorReader, buffer: Buffer, spec: TensorSpec, start: int, count: int
) -> torch.Tensor:
    size = spec.torch_dtype.itemsize
    window = buffer[: count * size]
    reader.read_into(window.data, spec.name, start * size)
    return torch.from_numpy(window).view(spec.torch_dtype)
