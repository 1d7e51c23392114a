"""Walks over subsets: each subset's preparation, with nothing done twice that a method can share.

In canonical order the subsets ``a``, ``a+b``, ``a+b+c``, ``a+c`` follow each other like words in a
dictionary, and each one's total is that of a subset before it plus one task. Whatever the walk, the
preparation of a subset takes the steps that the method takes for the subset alone, in the same order,
and so has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from taskgrid.merging.bases.algebra import Factored, Fold, Lifted
from taskgrid.merging.seam import MergeContext, MergeRecipe, Prepared
from taskgrid.store.weights import State

Walk = Callable[[Sequence[str]], Prepared]
"""Gives the preparation of a subset: tasks in canonical order, at least one. It holds until the next
call and must not be changed."""


def walk(
    recipe: MergeRecipe,
    base: Mapping[str, torch.Tensor],
    vector: Callable[[str], State],
    keep_bytes: int,
) -> Walk:
    """Return the walk that suits a method; subsets are best asked for in sorted order.

    Args:
        recipe: how to merge.
        base: theta_0.
        vector: gives a task's vector.
        keep_bytes: memory that may be taken by what is kept for subsets to come; one total is kept
            whatever it takes, beside what a method's ``finish`` makes of it.
    """
    merger, room = recipe.merger, _Room(keep_bytes)
    if isinstance(merger, Fold):
        return _Folding(merger, _Lifting(merger, recipe, base, vector, room), room).prepare
    if isinstance(merger, Factored):
        return _Joining(merger, _Lifting(merger, recipe, base, vector, room)).prepare
    return lambda subset: recipe.prepare(base, {task: vector(task) for task in subset})


class _Room:
    """Memory for what is kept."""

    def __init__(self, free: int) -> None:
        self._free = free

    def take(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Take memory for tensors, if it is there."""
        size = _bytes_of(tensors)
        fits = size <= self._free
        self._free -= size if fits else 0
        return fits

    def give_back(self, tensors: Iterable[torch.Tensor]) -> None:
        self._free += _bytes_of(tensors)


class _Lifting:
    """Lifts each task's vector once, as long as there is room for what comes of it."""

    def __init__(
        self,
        merger: Lifted,
        recipe: MergeRecipe,
        base: Mapping[str, torch.Tensor],
        vector: Callable[[str], State],
        room: _Room,
    ) -> None:
        self._merger, self._recipe, self._base = merger, recipe, base
        self._vector, self._room = vector, room
        self._kept: dict[str, Prepared] = {}

    def context(self, tasks: Sequence[str]) -> MergeContext:
        return self._recipe.context(self._base, {task: self._vector(task) for task in tasks})

    def lift(self, task: str) -> Prepared:
        if task in self._kept:
            return self._kept[task]
        lifted = self._merger.lift(self.context([task]))
        vector = self._vector(task)
        # A vector that needs no lifting takes no memory of its own.
        if self._room.take(t for name, t in lifted.items() if t is not vector.get(name)):
            self._kept[task] = lifted
        return lifted


class _Folding:
    """Keeps the last total and those of its beginnings."""

    def __init__(self, merger: Fold, lifting: _Lifting, room: _Room) -> None:
        self._merger, self._lifting, self._room = merger, lifting, room
        self._kept: list[tuple[tuple[str, ...], Prepared]] = []

    def prepare(self, subset: Sequence[str]) -> Prepared:
        wanted = tuple(subset)
        while self._kept and self._kept[-1][0] != wanted[: len(self._kept[-1][0])]:
            _, total = self._kept.pop()
            if self._kept:
                self._room.give_back(total.values())
        if not self._kept:
            self._kept.append((wanted[:1], self._merger.begin(self._lifting.lift(wanted[0]))))
        while len(self._kept[-1][0]) < len(wanted):
            self._extend(wanted)
        return self._merger.finish(self._kept[-1][1], wanted)

    def _extend(self, wanted: tuple[str, ...]) -> None:
        done, total = self._kept[-1]
        lifted = self._lifting.lift(wanted[len(done)])
        # Where there is no room for both, the beginning becomes the total.
        reuse = not self._room.take(total.values())
        if reuse:
            self._kept.pop()
        longer = self._merger.step(total, lifted, reuse=reuse)
        self._kept.append((wanted[: len(done) + 1], longer))


class _Joining:
    """Joins factors that are kept."""

    def __init__(self, merger: Factored, lifting: _Lifting) -> None:
        self._merger, self._lifting = merger, lifting

    def prepare(self, subset: Sequence[str]) -> Prepared:
        factors = {task: self._lifting.lift(task) for task in subset}
        return self._merger.join(factors, self._lifting.context(subset))


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
