"""How many images pass at a time: what was asked for or fits, less once memory has run out.

``auto`` is a constant on a CPU, because the last bits of a row depend on it. On a GPU two small
passes tell what an image takes, and the batch is what fits into a share of the free memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, TypeVar

import torch

from taskgrid.errors import DeviceError
from taskgrid.models.card import ModelCard
from taskgrid.models.inference import Encodes, features_of

_Result = TypeVar("_Result")

BatchChoice: TypeAlias = int | Literal["auto"]
"""Images per pass, or ``auto``."""

CPU_BATCH = 128
"""What ``auto`` is on a CPU: the fastest of those that were measured (docs/performance.md)."""

LARGEST = 1024
"""What ``auto`` is at most: more images at a time keep no device busier."""

_PROBES = (8, 16)
"""Images of the two passes that are measured."""

_SHARE = 0.125
"""Share of the memory that is free at the first pass which passes may take.

Of what task vectors leave, images may take half and sums of vectors a quarter; the last eighth is for
what splits memory into pieces that are too small.
"""


class MemoryMeter(Protocol):
    """Knows the memory of a device."""

    def free(self) -> int:
        """Return the bytes that can still be allocated."""
        ...

    def peak_of(self, work: Callable[[], object]) -> int:
        """Do some work; return the bytes that it held at its peak, beyond those held before."""
        ...


class CudaMeter:
    """The memory of a GPU as torch's allocator sees it.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """Return the bytes that can still be allocated."""
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self._device)[0])

    def peak_of(self, work: Callable[[], object]) -> int:
        """Do some work; return the bytes that it held at its peak, beyond those held before."""
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        work()
        return torch.cuda.max_memory_allocated(self._device) - before


def advise(size: int) -> str:
    """Say how a person can begin with a size."""
    return f"set evaluation.batch_size to {size} to begin there"


class BatchSize:
    """A batch size that is halved when the device runs out of memory, and stays so.

    Args:
        size: images per pass.
        halved: is told each new size; returns what is said about the next time, or nothing.
    """

    def __init__(self, size: int, halved: Callable[[int], str] = advise) -> None:
        self.size = size
        self._halved = halved

    def fit(self, work: Callable[[int], _Result]) -> _Result:
        """Do some work with as many images per pass as fit.

        Args:
            work: is given the number of images per pass; begun again from its start when it runs out
                of memory, so that no result mixes two sizes.

        Raises:
            DeviceError: if a single image does not fit.
        """
        while True:
            try:
                return work(self.size)
            except torch.OutOfMemoryError as error:
                if self.size == 1:
                    raise DeviceError(
                        "the device has no memory for one image beside the model; use a larger one, or "
                        "the CPU (device: cpu)"
                    ) from error
            # Here, where no traceback holds the tensors of the failed pass any more.
            self._halve()

    def _halve(self) -> None:
        tried, self.size = self.size, self.size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        said = [f"out of memory with {tried} images per pass, going on with {self.size}"]
        said += filter(None, [self._halved(self.size)])
        print("; ".join(said), file=sys.stderr)


def fitted(
    asked: BatchChoice,
    device: torch.device,
    passing: Callable[[int], object],
    *,
    halved: Callable[[int], str] = advise,
    meter: MemoryMeter | None = None,
) -> BatchSize:
    """Return the batch size to begin with.

    Args:
        asked: what the configuration says.
        device: where passes are made.
        passing: makes a pass of so many images; used for ``auto`` on a GPU.
        halved: as for ``BatchSize``.
        meter: the device's memory; None measures it.
    """
    if asked != "auto":
        return BatchSize(asked, halved)
    if device.type != "cuda":
        return BatchSize(CPU_BATCH, halved)
    size = measured(meter or CudaMeter(device), passing)
    print(f"batch size auto: {size} images per pass", file=sys.stderr)
    return BatchSize(size, halved)


def measured(meter: MemoryMeter, passing: Callable[[int], object]) -> int:
    """Return the batch size that the free memory allows, from two small passes.

    Args:
        meter: the device's memory.
        passing: makes a pass of so many images.
    """
    try:
        # The first pass also takes workspaces, which stay.
        passing(_PROBES[0])
        few, many = (meter.peak_of(lambda n=n: passing(n)) for n in _PROBES)  # type: ignore[misc]
    except torch.OutOfMemoryError:
        # Halved from here on.
        return _PROBES[0]
    return largest_batch(few, many, int(_SHARE * meter.free()))


def largest_batch(few: int, many: int, room: int) -> int:
    """Return the largest power of two of images, at most ``LARGEST``, of which a pass fits.

    Args:
        few: bytes that a pass of 8 images takes.
        many: bytes that a pass of 16 images takes.
        room: bytes that a pass may take.
    """
    each = max((many - few) / (_PROBES[1] - _PROBES[0]), 1.0)
    fixed = max(few - _PROBES[0] * each, 0.0)
    count = min(max(int((room - fixed) / each), 1), LARGEST)
    return int(2 ** (count.bit_length() - 1))


def blank(card: ModelCard, count: int, device: torch.device) -> torch.Tensor:
    """Return images to probe with, ``(count, S, S, 3)`` uint8."""
    return torch.zeros(count, card.image_size, card.image_size, 3, dtype=torch.uint8, device=device)


def passing(encoder: Encodes, device: torch.device, precision: str) -> Callable[[int], object]:
    """Return what makes a pass of so many blank images through an encoder."""
    return lambda count: features_of(
        encoder,
        blank(encoder.card, count, device),
        batch_size=count,
        device=device,
        precision=precision,
    )
