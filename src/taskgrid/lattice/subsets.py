"""The lattice of task subsets: their names, and their numbers.

Task ``i`` of the configuration is bit ``i`` of a subset's number, so appending a task adds numbers and
changes none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from taskgrid.errors import ConfigError

TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
"""No ``+`` (joins a subset), no ``/`` (paths), lower case (case-blind file systems)."""


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
    """Join task names to a subset's name.

    Examples:
        >>> subset_name(["svhn", "dtd"])
        'dtd+svhn'
    """
    return "+".join(canonical_subset(tasks))


def parse_subset(name: str) -> tuple[str, ...]:
    """Split a subset's name into its tasks; the empty name is the empty subset."""
    return canonical_subset(name.split("+")) if name else ()


def subset_number(tasks: Iterable[str], order: Sequence[str]) -> int:
    """Return the number of a subset: bit ``i`` is set when ``order[i]`` is in it.

    Raises:
        ConfigError: if a task is not in ``order``.

    Examples:
        >>> subset_number(["dtd", "svhn"], order=["mnist", "dtd", "svhn"])
        6
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
