"""Walks over subsets: each subset's preparation, with nothing done twice that a method can share.

In canonical order the subsets ``a``, ``a+b``, ``a+b+c``, ``a+c`` follow each other like words in a
dictionary, and each one's total is that of a subset before it plus one task. Whatever the walk, the
preparation of a subset takes the steps that the method takes for the subset alone, in the same order,
and so has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from taskgrid.merging.bases.additive import Additive, weighted_sum
from taskgrid.merging.bases.algebra import Factored, Fold, Lifted
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import MergeContext, Prepared, Sources
from taskgrid.plugins.options import Options


class Walk(Protocol):
    """Gives the preparation of a subset."""

    def __call__(
        self, subset: Sequence[str], coefficients: Mapping[str, float] | None = None, /
    ) -> Prepared:
        """Return the preparation of tasks in canonical order, at least one.

        It holds until the next call and must not be changed. ``coefficients`` are the point's, where it
        names them.
        """
        ...


def walk(
    recipe: MergeRecipe,
    base: Mapping[str, torch.Tensor],
    sources: Sources,
    keep_bytes: int,
) -> Walk:
    """Return the walk that suits a method; subsets are best asked for in sorted order.

    Args:
        recipe: how to merge.
        base: theta_0.
        sources: gives vectors, statistics, learned coefficients.
        keep_bytes: memory that may be taken by what is kept for subsets to come; one total is kept
            whatever it takes, beside what becomes of it.
    """
    merger, room = recipe.weights_merger, _Room(keep_bytes)
    steps: _Steps | None = None
    if isinstance(merger, Additive):
        steps = _Sums(merger, recipe, sources)
    elif isinstance(merger, Fold):
        lifting = _Lifting(merger, recipe, base, sources, room)
        steps = _Folds(merger, lifting, recipe.options)
    elif isinstance(merger, Factored):
        lifting = _Lifting(merger, recipe, base, sources, room)
        return _Joining(merger, lifting, partial(recipe.context, base, sources)).prepare
    anew = partial(recipe.prepare, base, sources)
    return _Prefixes(steps, room, anew).prepare if steps is not None else anew


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
        sources: Sources,
        room: _Room,
    ) -> None:
        self._merger, self._recipe, self._base = merger, recipe, base
        # What was learned belongs to a whole subset.
        self._sources, self._room = replace(sources, learned=lambda tasks: {}), room
        self._kept: dict[tuple[str, float], Prepared] = {}

    def lift(self, task: str, weight: float = 1.0) -> Prepared:
        """Lift a task's vector times a coefficient, which a method that weighs does not see."""
        place = (task, 1.0 if self._merger.weighs else weight)
        if place in self._kept:
            return self._kept[place]
        weights = {task: weight} if place[1] != 1 else None
        context = self._recipe.context(self._base, self._sources, [task], weights)
        lifted = self._merger.lift(context.alone(task))
        vector = self._sources.vector(task)
        # A vector that needs no lifting takes no memory of its own.
        if self._room.take(t for name, t in lifted.items() if t is not vector.get(name)):
            self._kept[place] = lifted
        return lifted


class _Steps(Protocol):
    """Takes one task after the other into a total; ``lean`` as for ``Fold``."""

    lean: bool

    def begin(self, task: str) -> Prepared: ...
    def step(self, total: Prepared, task: str, *, reuse: bool) -> Prepared: ...
    def finish(self, total: Prepared, tasks: Sequence[str]) -> Prepared: ...


class _Sums:
    """Sums of weighted vectors, the steps of ``additive.weighted_sum``."""

    lean = False

    def __init__(self, merger: Additive, recipe: MergeRecipe, sources: Sources) -> None:
        self._merger, self._options, self._vector = merger, recipe.options, sources.vector

    def begin(self, task: str) -> Prepared:
        return weighted_sum([(self._merger.weight(task, self._options), self._vector(task))])

    def step(self, total: Prepared, task: str, *, reuse: bool) -> Prepared:
        weight, vector = self._merger.weight(task, self._options), self._vector(task)
        if reuse:
            return {key: total[key].add_(delta, alpha=weight) for key, delta in vector.items()}
        return {key: torch.add(total[key], delta, alpha=weight) for key, delta in vector.items()}

    def finish(self, total: Prepared, tasks: Sequence[str]) -> Prepared:
        return self._merger.divided(total, tasks, self._options)


class _Folds:
    """The steps of a fold, each task lifted once."""

    def __init__(self, merger: Fold, lifting: _Lifting, options: Options) -> None:
        self._merger, self._lifting, self._options = merger, lifting, options
        self.lean = merger.lean

    def begin(self, task: str) -> Prepared:
        return self._merger.begin(self._lifting.lift(task))

    def step(self, total: Prepared, task: str, *, reuse: bool) -> Prepared:
        return self._merger.step(total, self._lifting.lift(task), reuse=reuse)

    def finish(self, total: Prepared, tasks: Sequence[str]) -> Prepared:
        return self._merger.finish(total, tasks, self._options)


class _Prefixes:
    """Keeps the last total and those of its beginnings."""

    def __init__(self, steps: _Steps, room: _Room, anew: Walk) -> None:
        self._steps, self._room, self._anew = steps, room, anew
        self._kept: list[tuple[tuple[str, ...], Prepared]] = []
        self._fits: bool | None = None if steps.lean else True

    def prepare(
        self, subset: Sequence[str], coefficients: Mapping[str, float] | None = None, /
    ) -> Prepared:
        if coefficients or self._fits is False:
            # Points with coefficients of their own share no beginnings.
            return self._anew(subset, coefficients)
        wanted = tuple(subset)
        while self._kept and self._kept[-1][0] != wanted[: len(self._kept[-1][0])]:
            _, total = self._kept.pop()
            if self._kept:
                self._room.give_back(total.values())
        if not self._kept:
            total = self._steps.begin(wanted[0])
            if self._fits is None:
                self._fits = self._room.take(total.values())
                if not self._fits:
                    return self._anew(subset)
            self._kept.append((wanted[:1], total))
        while len(self._kept[-1][0]) < len(wanted):
            self._extend(wanted)
        return self._steps.finish(self._kept[-1][1], wanted)

    def _extend(self, wanted: tuple[str, ...]) -> None:
        done, total = self._kept[-1]
        # Where there is no room for both, the beginning becomes the total.
        reuse = not self._room.take(total.values())
        if reuse:
            self._kept.pop()
        longer = self._steps.step(total, wanted[len(done)], reuse=reuse)
        self._kept.append((wanted[: len(done) + 1], longer))


class _Joining:
    """Joins factors that are kept."""

    def __init__(
        self, merger: Factored, lifting: _Lifting, context: Callable[..., MergeContext]
    ) -> None:
        self._merger, self._lifting, self._context = merger, lifting, context

    def prepare(
        self, subset: Sequence[str], coefficients: Mapping[str, float] | None = None, /
    ) -> Prepared:
        weights = coefficients or {}
        factors = {task: self._lifting.lift(task, weights.get(task, 1.0)) for task in subset}
        return self._merger.join(factors, self._context(subset, coefficients))


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
