"""The lattice of task subsets: names, numbers, blocks, and scaling coefficients as text.

Task ``i`` of the configuration is bit ``i`` of a subset's number, and blocks are fixed ranges of
numbers, so appending a task adds numbers and changes none.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from taskgrid.errors import ConfigError

TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
"""No ``+`` (joins a subset), no ``/`` (paths), lower case (case-blind file systems)."""

_MIN_DECIMALS = 2
_MAX_DECIMALS = 6


def format_lambda(value: float | Decimal | str) -> str:
    """Print a scaling coefficient as fixed decimals: ``0.3`` is ``"0.30"``, ``0.125`` is itself.

    The text depends on the value alone, never on its neighbours in a sweep: it can be a key.

    Raises:
        ConfigError: if the value is not finite or needs more than six decimals.
    """
    if not math.isfinite(float(value)):
        raise ConfigError(f"lambda {value} is not a finite number")
    # repr gives the shortest decimal that round-trips; 15 digits absorb 0.1 * 3 = 0.30000000000000004.
    number = value if isinstance(value, Decimal) else Decimal(format(float(value), ".15g"))
    rounded = round(number, _MAX_DECIMALS)
    if abs(rounded - number) > Decimal("1e-12"):
        raise ConfigError(
            f"lambda {value} needs more than {_MAX_DECIMALS} decimals; round it in the configuration"
        )
    text = f"{rounded + 0:.{_MAX_DECIMALS}f}"
    whole, decimals = text.lstrip("-").split(".")
    decimals = decimals.rstrip("0").ljust(_MIN_DECIMALS, "0")
    sign = "-" if rounded < 0 else ""
    return f"{sign}{whole}.{decimals}"


def lambda_value(text: str) -> float:
    """Return the number that ``format_lambda`` printed."""
    return float(text)


def canonical_subset(tasks: Iterable[str]) -> tuple[str, ...]:
    """Sort task names; the canonical form of a subset.

    Raises:
        ConfigError: if a name occurs twice.
    """
    names = sorted(tasks)
    for left, right in itertools.pairwise(names):
        if left == right:
            raise ConfigError(f"task {left!r} occurs twice in the subset {'+'.join(names)}")
    return tuple(names)


def subset_name(tasks: Iterable[str]) -> str:
    """Join task names to a subset's name: ``["svhn", "dtd"]`` -> ``"dtd+svhn"``."""
    return "+".join(canonical_subset(tasks))


def parse_subset(name: str) -> tuple[str, ...]:
    """Split a subset's name into its tasks; the empty name is the empty subset."""
    return canonical_subset(name.split("+")) if name else ()


def subset_number(tasks: Iterable[str], order: Sequence[str]) -> int:
    """Return the number of a subset: bit ``i`` is set when ``order[i]`` is in it.

    Raises:
        ConfigError: if a task is not in ``order``.
    """
    bits = {task: 1 << i for i, task in enumerate(order)}
    number = 0
    for task in canonical_subset(tasks):
        if task not in bits:
            raise ConfigError(f"task {task!r} is not one of {', '.join(order)}")
        number |= bits[task]
    return number


def subset_of_number(number: int, order: Sequence[str]) -> tuple[str, ...]:
    """Return the canonical subset whose number is ``number``."""
    if not 0 <= number < 1 << len(order):
        raise ConfigError(f"subset number {number} is outside 0..{(1 << len(order)) - 1}")
    return canonical_subset(task for i, task in enumerate(order) if number >> i & 1)


@dataclass(frozen=True)
class Block:
    """The subset numbers ``start <= n < stop``; a unit of work.

    Attributes:
        index: the first of the grid's fixed ranges of numbers that it covers.
        start: its first number.
        stop: one more than its last number.
        span: how many of these ranges it covers.
    """

    index: int
    start: int
    stop: int
    span: int = 1

    @property
    def label(self) -> str:
        """The block's place as fixed-width text, for paths: ``00003``, or ``00004-00007``."""
        first = f"{self.index:05d}"
        return first if self.span == 1 else f"{first}-{self.index + self.span - 1:05d}"

    @classmethod
    def at(cls, index: int, size: int, span: int = 1) -> Block:
        """Return the block that covers ``span`` ranges of ``size`` numbers from range ``index``."""
        return cls(index, index * size, (index + span) * size, span)

    @classmethod
    def parse(cls, label: str, size: int) -> Block:
        """Return the block of a label."""
        first, _, last = label.partition("-")
        return cls.at(int(first), size, int(last or first) - int(first) + 1)


def wide_blocks_of(numbers: Iterable[int], size: int) -> tuple[Block, ...]:
    """Return blocks that hold up to ``size`` of ``numbers`` each, wide where these lie far apart.

    A sample of a big lattice would put one subset into each block of fixed width. Here neighbouring
    halves are joined as long as both together hold no more than ``size`` subsets, but never the
    numbers of an appended task with those before it, unless all of them are less than a block's worth.
    So appending a task changes no block but a lone one, which may grow; and the whole lattice is cut
    into ranges of ``size`` numbers.

    Raises:
        ConfigError: if ``size`` is not a power of two.
    """
    _check_block_size(size)
    ordered = sorted(set(numbers))

    def cut(start: int, stop: int) -> Iterator[Block]:
        count = bisect_left(ordered, stop) - bisect_left(ordered, start)
        if count > size and stop - start > size:
            middle = (start + stop) // 2
            yield from cut(start, middle)
            yield from cut(middle, stop)
        elif count:
            yield Block(start // size, start, stop, (stop - start) // size)

    start = size
    # Less than a block's worth, for number 0 (no task) takes a place in a range of fixed width.
    while ordered and start <= ordered[-1] and bisect_left(ordered, 2 * start) < size:
        start *= 2
    found = list(cut(0, start))
    while ordered and start <= ordered[-1]:
        found += cut(start, 2 * start)
        start *= 2
    return tuple(found)


def _check_block_size(size: int) -> None:
    if size < 1 or size & (size - 1):
        raise ConfigError(f"block_size {size} is not a power of two")


def all_numbers(tasks: int) -> range:
    """Return the numbers of all non-empty subsets of ``tasks`` tasks."""
    return range(1, 1 << tasks)


def numbers_of_sizes(tasks: int, sizes: Iterable[int]) -> Iterator[int]:
    """Yield, in increasing order, the numbers of the subsets with one of the given sizes."""
    wanted = {size for size in sizes if 1 <= size <= tasks}
    found = [
        sum(1 << bit for bit in bits)
        for size in wanted
        for bits in itertools.combinations(range(tasks), size)
    ]
    yield from sorted(found)
