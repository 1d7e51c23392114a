"""Windows: how much of every tensor is in memory at a time, so that a bound holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from taskgrid.errors import ConfigError
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.outofcore.inputs import Inputs
from taskgrid.outofcore.shards import TensorSpec
from taskgrid.outofcore.sink import Sink

_SLICE = 32_768
"""Elements that are merged at a time: operands stay in a core's cache, and torch does not split so
few over threads, which would cost more than it brings beside the threads that write."""

_LONGEST = 1 << 18
"""Elements that are read at a time at most; longer windows read no faster."""

_SLACK = 6 << 20
"""Memory of temporary slices, thread stacks and headers of the usual size."""

_SMALLEST = 1 << 16
"""Bytes of the smallest buffer, and of a window of a tensor that is no weight."""

SLOTS = 2
"""Windows of the inputs: one is merged while the next is read."""


class BoundError(ConfigError):
    """A bound on memory that is too small, in a sentence that calls it ``max_bytes``.

    Args:
        sentence: what is wrong; ``{bound}`` and ``{enough}`` stand for its name and a value that does.
        needed: bytes that would do.
    """

    def __init__(self, sentence: str, needed: int) -> None:
        super().__init__(sentence.format(bound="max_bytes", enough=needed))
        self._sentence, self._needed = sentence, needed

    def called(self, bound: str, unit: int) -> ConfigError:
        """Return the same for a bound that its user knows by another name and in another unit."""
        enough = -(-self._needed // unit)
        return ConfigError(self._sentence.format(bound=bound, enough=enough))


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

    @property
    def other_bytes(self) -> int:
        """Bytes of the buffer for what must be converted or compared."""
        return _SMALLEST if self.direct else self.nbytes

    def spans(self, spec: TensorSpec) -> Iterator[tuple[int, int]]:
        """Yield first element and number of elements of a tensor's windows."""
        length = self.length if spec.floating else _SMALLEST // spec.torch_dtype.itemsize
        for start in range(0, spec.numel, length):
            yield start, min(length, spec.numel - start)

    @classmethod
    def within(
        cls,
        max_bytes: int,
        inputs: Inputs,
        recipe: MergeRecipe,
        threads: int,
        statistics: tuple[int, int] = (0, 0),
    ) -> Window:
        """Return the largest useful window whose buffers, all together, stay below a bound.

        Args:
            max_bytes: the bound.
            inputs: what is merged.
            recipe: how.
            threads: threads of the sink.
            statistics: bytes that statistics take: for each element of a window, and whatever its length.

        Raises:
            BoundError: if the smallest window does not fit; names the memory it needs.
        """
        weights = [spec for spec in inputs.base.specs.values() if spec.floating]
        widest = max((spec.torch_dtype.itemsize for spec in weights), default=4)
        direct = all(spec.dtype == "F32" for spec in weights)
        # Base, outputs, an expert that must be converted; the vectors; two float64 of `prepare`.
        states = SLOTS + Sink.buffers(threads) + (not direct)
        beside = _SLACK + SLOTS * statistics[1]
        per_element = widest * states + SLOTS * (4 * len(inputs.experts) + statistics[0]) + 16
        if recipe.scope == "element":
            smallest, what = _SLICE, f"{len(inputs.experts)} experts"
            room = (max_bytes - beside) // per_element
            length = max(smallest, min(room // _SLICE * _SLICE, _LONGEST))
        else:
            length = smallest = max((spec.numel for spec in weights), default=1)
            what = f"the largest tensor of {len(inputs.experts)} experts at once"
            per_element += 24  # `prepare` and `apply` compute with copies in float64
        needed = beside + smallest * per_element
        if needed > max_bytes:
            raise BoundError(
                f"merge method {recipe.name!r} needs {needed / 1e6:.1f} MB of memory for {what}, "
                f"but {{bound}} allows {max_bytes / 1e6:.1f} MB; raise it to {{enough}}",
                needed,
            )
        return cls(length, max(length * widest, _SMALLEST), direct)


def slices(count: int) -> Iterator[slice]:
    """Cut a window into pieces that are computed at a time."""
    return (slice(start, min(start + _SLICE, count)) for start in range(0, count, _SLICE))
