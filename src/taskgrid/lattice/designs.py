"""Designs: which subsets of a big lattice are on the grid, as a union of simple choices.

A design is a pure function of the number of tasks and of its own settings. What happens when a task
is appended:

- numbers never change (bit ``i`` stays task ``i``);
- ``sizes``, ``up_to`` and ``include`` keep all they had and gain subsets with the new task;
- ``sample`` stays uniform, so some of its subsets give way to subsets with the new task. Those that
  it keeps were in the sample before: of the old lattice nothing new is measured. Of size k, the share
  (T + 1 - k) / (T + 1) stays on average. With ``keep`` all of them stay. A ``total`` below the number
  of tasks is refused: it would choose other sizes, and so old subsets, when a task is appended;
- ``leave_out`` moves with the full set, as it must.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from taskgrid.errors import ConfigError
from taskgrid.lattice.subsets import (
    all_numbers,
    numbers_of_sizes,
    subset_name,
    subset_number,
    subset_of_number,
)

MOST_SUBSETS = 1 << 16
"""More subsets than this are refused: as many as `all` means for 16 tasks."""


Count = Annotated[int, Field(strict=True, ge=1, le=2**32 - 1)]
Natural = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Sample:
    """A seeded sample of subsets, stratified by size: give `per_size` or `total`."""

    per_size: Count | None = None
    """Subsets of each size (all, when there are fewer)."""
    total: Count | None = None
    """Subsets in all, spread evenly over the sizes: as many as there are tasks, or more."""
    seed: Natural = 0
    """Seed of the sample."""
    keep: tuple[Count, ...] = ()
    """Numbers of tasks: what the sample was when there were so many stays on the grid."""

    def __post_init__(self) -> None:
        if (self.per_size is None) == (self.total is None):
            raise ValueError("give `per_size` or `total`, and not both")

    def counts(self, tasks: int) -> dict[int, int]:
        """Return how many subsets of each size are drawn."""
        if self.total is not None:
            return spread(tasks, self.total)
        wanted = self.per_size or 0
        return {size: min(wanted, math.comb(tasks, size)) for size in range(1, tasks + 1)}

    def rounds(self, tasks: int) -> tuple[int, ...]:
        """Return the numbers of tasks for which a sample is drawn: now, and those to keep."""
        return (*sorted(count for count in set(self.keep) if count < tasks), tasks)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Design:
    """A choice of subsets: the union of what the keys name; the empty subset is never in it."""

    everything: Annotated[bool, Field(strict=True)] = False
    """Every subset; the word `all` in place of the mapping is short for it."""
    sizes: tuple[Count, ...] = ()
    """All subsets of these sizes."""
    up_to: Count | None = None
    """All subsets of at most so many tasks."""
    leave_out: Natural | None = None
    """All subsets that leave out at most so many tasks, the full set among them."""
    include: tuple[tuple[Annotated[str, Field(strict=True)], ...], ...] = ()
    """These subsets, as lists of tasks."""
    sample: Sample | None = None
    """A seeded sample."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Design:
        """Return the design that ``dataclasses.asdict`` took apart, also after a round trip as JSON."""
        return cls(**values)

    def count(self, tasks: int) -> int:
        """Return an upper limit of the number of subsets, without listing them.

        It is exact but for listed and sampled subsets that other choices hold, too.
        """
        whole = sum(math.comb(tasks, size) for size in self._whole_sizes(tasks))
        listed = len(self.include)
        drawn = sum(sum(counts.values()) for _, counts in self._samples(tasks))
        return min(whole + listed + drawn, (1 << tasks) - 1)

    def numbers(self, order: Sequence[str], key: str = "grid.subsets") -> tuple[int, ...]:
        """Return the numbers of the design's subsets, increasing.

        Args:
            order: the tasks; task ``i`` is bit ``i``.
            key: where the configuration says so, for messages.

        Raises:
            ConfigError: if there would be more than ``MOST_SUBSETS``, a listed task is unknown, a
                listed subset is empty, or a sample is smaller than the number of tasks.
        """
        tasks = len(order)
        total = self.sample.total if self.sample is not None else None
        if total is not None and total < tasks:
            raise ConfigError(
                f"{key}.sample.total is {total}, which leaves out some sizes of subsets of {tasks} tasks; "
                f"give {tasks} or more, or use per_size or include"
            )
        if (count := self.count(tasks)) > MOST_SUBSETS:
            raise ConfigError(
                f"{key} means {count} subsets of {tasks} tasks, more than {MOST_SUBSETS}; "
                "choose sizes, up_to, leave_out, include or a sample"
            )
        found: set[int] = set()
        sizes = self._whole_sizes(tasks)
        found.update(all_numbers(tasks) if len(sizes) == tasks else numbers_of_sizes(tasks, sizes))
        for names in self.include:
            if not names:
                raise ConfigError(f"{key}.include holds an empty subset; that is the base itself")
            if len(set(names)) < len(names):
                raise ConfigError(f"{key}.include names a task twice: {', '.join(names)}; keep one")
            if unknown := sorted(set(names) - set(order)):
                raise ConfigError(
                    f"{key}.include names task {unknown[0]!r}, which is not in tasks: {', '.join(order)}"
                )
            found.add(subset_number(names, order))
        for drawn_from, counts in self._samples(tasks):
            found.update(draw_numbers(drawn_from, counts, self.sample.seed if self.sample else 0))
        return tuple(sorted(found))

    def _samples(self, tasks: int) -> list[tuple[int, dict[int, int]]]:
        if self.sample is None:
            return []
        return [(count, self.sample.counts(count)) for count in self.sample.rounds(tasks)]

    def names(self, order: Sequence[str], key: str = "grid.subsets") -> tuple[str, ...]:
        """Return the names of the design's subsets, by increasing number; raises as `numbers` does."""
        numbers = self.numbers(order, key)
        return tuple(subset_name(subset_of_number(number, order)) for number in numbers)

    def _whole_sizes(self, tasks: int) -> tuple[int, ...]:
        possible = range(1, tasks + 1)
        return tuple(
            size
            for size in possible
            if self.everything
            or size in self.sizes
            or (self.up_to is not None and size <= self.up_to)
            or (self.leave_out is not None and size >= tasks - self.leave_out)
        )


def draw_numbers(tasks: int, counts: Mapping[int, int], seed: int) -> tuple[int, ...]:
    """Draw subsets of each size uniformly, without replacement and without listing the others.

    For each size there is one random order of its subsets, made task by task: the order of T tasks is
    that of T - 1 tasks, with the subsets that hold the last task shuffled in. The sample is the
    beginning of that order. So

    - asking for more keeps what was drawn before;
    - the subsets of the first T tasks in the sample of T + 1 tasks are the beginning of the order of
      T tasks: an appended task displaces subsets, and never brings in another old one.

    Args:
        tasks: number of tasks.
        counts: how many subsets of each size.
        seed: seed of the orders.
    """
    drawn = [
        number
        for size, count in counts.items()
        if 1 <= size <= tasks
        for number in _draw(tasks, size, min(count, math.comb(tasks, size)), seed)
    ]
    return tuple(sorted(drawn))


def spread(tasks: int, total: int) -> dict[int, int]:
    """Share ``total`` subsets out evenly over the sizes; what a small size cannot take, others do.

    The remainder goes to the sizes with most subsets. A larger total takes nothing away.
    """
    room = {size: math.comb(tasks, size) for size in range(1, tasks + 1)}
    counts = dict.fromkeys(room, 0)
    left = min(total, sum(room.values()))
    while left:
        open_sizes = [size for size in room if counts[size] < room[size]]
        share = min(left // len(open_sizes), min(room[size] - counts[size] for size in open_sizes))
        if share == 0:
            open_sizes = sorted(open_sizes, key=lambda size: (-room[size], size))[:left]
            share = 1
        for size in open_sizes:
            counts[size] += share
        left -= share * len(open_sizes)
    return counts


def number_of_rank(size: int, rank: int) -> int:
    """Return the subset of ``size`` tasks at place ``rank`` by increasing number.

    This is the combinatorial number system: rank = C(b_1, 1) + C(b_2, 2) + ... for the increasing
    bits b_1 < b_2 < ... of the number.
    """
    number = 0
    for taken in range(size, 0, -1):
        bit = taken - 1
        while math.comb(bit + 1, taken) <= rank:
            bit += 1
        rank -= math.comb(bit, taken)
        number |= 1 << bit
    return number


def _draw(tasks: int, size: int, count: int, seed: int) -> Iterator[int]:
    """Yield the first ``count`` subsets of a size's order, those with the last tasks first."""
    for last in range(tasks, size - 1, -1):
        # The first `count` places of the order of `last` tasks: which of them hold the last one?
        old, new = math.comb(last - 1, size), math.comb(last - 1, size - 1)
        shuffled = _Draws("riffle", seed, size, last)
        fresh = 0
        for place in range(count):
            fresh += shuffled.below(old + new - place) >= old - (place - fresh)
        for rank in _ranks(new, fresh, _Draws("ranks", seed, size, last)):
            yield 1 << (last - 1) | number_of_rank(size - 1, rank)
        count -= fresh


def _ranks(population: int, count: int, draws: _Draws) -> Iterator[int]:
    """Yield the beginning of a random permutation, by a shuffle that stores only what it moved."""
    moved: dict[int, int] = {}
    for place in range(count):
        other = place + draws.below(population - place)
        yield moved.get(other, other)
        moved[other] = moved.get(place, place)


class _Draws:
    """Random whole numbers that depend on the key alone, not on the version of a library."""

    def __init__(self, *key: str | int) -> None:
        self._key = "/".join(map(str, ("taskgrid", *key)))
        self._count = 0

    def below(self, limit: int) -> int:
        self._count += 1
        drawn = hashlib.sha256(f"{self._key}/{self._count}".encode()).digest()
        # 256 bits: the remainder favours small numbers by less than limit / 2^256.
        return int.from_bytes(drawn, "big") % limit
