"""Blocks: fixed ranges of subset numbers, the units of work; an appended task changes none of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from taskgrid.errors import ConfigError


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
