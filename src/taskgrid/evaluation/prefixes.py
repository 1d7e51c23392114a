"""Sums of task vectors along a walk of the lattice: each subset from the sum of its beginning.

In canonical order the subsets ``a``, ``a+b``, ``a+b+c``, ``a+c`` follow each other like words in a
dictionary, and each one's sum is that of a subset before it plus one vector. The additions are those
that ``merging.additive.weighted_sum`` makes for the subset alone, in the same order, so the sum has
the same bits whatever was asked for before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskgrid.merging.additive import weighted_sum
from taskgrid.merging.base import Prepared
from taskgrid.store.weights import State


class PrefixSums:
    """Sums of task vectors in float64, the last one and its beginnings kept.

    Args:
        vector: gives a task's vector.
        keep_bytes: memory that kept sums may take; the last sum is kept whatever it takes.
    """

    def __init__(self, vector: Callable[[str], State], keep_bytes: int) -> None:
        self._vector = vector
        self._keep_bytes = keep_bytes
        self._kept: list[tuple[tuple[str, ...], Prepared]] = []
        self.additions = 0

    def of(self, subset: Sequence[str]) -> Prepared:
        """Return the sum of a subset's vectors; it must not be changed.

        Args:
            subset: tasks in canonical order, at least one.
        """
        wanted = tuple(subset)
        while self._kept and self._kept[-1][0] != wanted[: len(self._kept[-1][0])]:
            self._kept.pop()
        if not self._kept:
            self._keep(wanted[:1], weighted_sum([(1.0, self._vector(wanted[0]))]))
        while len(self._kept[-1][0]) < len(wanted):
            done, total = self._kept[-1]
            self._keep((*done, wanted[len(done)]), self._added(total, wanted[len(done)]))
        return self._kept[-1][1]

    def _added(self, total: Prepared, task: str) -> Prepared:
        vector = self._vector(task)
        self.additions += 1
        if self._room(total):
            return {key: tensor + vector[key] for key, tensor in total.items()}
        # No room to keep the beginning: it becomes the sum.
        self._kept.pop()
        for key, tensor in total.items():
            tensor.add_(vector[key])
        return total

    def _keep(self, subset: tuple[str, ...], total: Prepared) -> None:
        self._kept.append((subset, total))

    def _room(self, total: Prepared) -> bool:
        size = sum(tensor.numel() * tensor.element_size() for tensor in total.values())
        return size * (len(self._kept) + 1) <= self._keep_bytes
