"""The merger seam: a lambda-free *prepare*, then a cheap *apply* for every lambda.

A method is one module with a ``CARD`` and a ``MERGER``, and one line in the registry. Nothing here
assumes that a merged model is affine in lambda, or that subsets have anything in common; a method that
knows better says so by what it inherits from (``merging.bases``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, cast

import torch

from taskgrid.errors import LineageError
from taskgrid.lattice.subsets import canonical_subset
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State

Prepared: TypeAlias = dict[str, torch.Tensor]
"""What *prepare* found out: named tensors, free of lambda, that can be stored as an artefact."""

Statistics: TypeAlias = Mapping[str, Mapping[str, State] | State]
"""What a person gives: name -> task -> statistic, and of one per base, name -> statistic."""

Learned: TypeAlias = Mapping[str, torch.Tensor]
"""What was learned for a subset. Coefficients: task -> one for the model, ``()``, or one per floating
tensor of the base in the order of their names, ``(tensors,)``. Tensors: by names that are the method's
own, of which those of the base's tensors have their shapes."""


def learned_names(base: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the tensors that learned coefficients per tensor stand for, in their order."""
    return sorted(name for name, tensor in base.items() if tensor.is_floating_point())


@dataclass(frozen=True)
class MergeContext:
    """What *prepare* may look at.

    Attributes:
        base: theta_0; also tensors that are not floating, which methods leave alone.
        vectors: task -> float32 task vector over the floating tensors, in canonical order. Where a point
            names a coefficient for each task they are multiplied by it already, unless the method
            ``weighs`` them itself.
        options: the method's options.
        seed: for methods that draw; derive from it with ``provenance.derive_seed``.
        statistics: name -> task -> statistic, for what the card ``needs``; a statistic of the base has
            the task ``""``.
        coefficients: task -> coefficient, where a point names them; for methods that ``weigh``.
        learned: what was learned for this subset, for a card that says ``learned``.
    """

    base: Mapping[str, torch.Tensor]
    vectors: Mapping[str, Mapping[str, torch.Tensor]]
    options: Options = field(default_factory=Options)
    seed: int = 0
    statistics: Mapping[str, Mapping[str, State]] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)
    learned: Learned | None = None

    def __post_init__(self) -> None:
        # One order for all: a merge does not depend on how the caller listed the tasks.
        ordered = {task: self.vectors[task] for task in canonical_subset(self.vectors)}
        object.__setattr__(self, "vectors", ordered)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The merged tasks, in canonical order."""
        return tuple(self.vectors)

    def coefficient(self, task: str) -> float:
        """Return a task's coefficient; 1 where the point names none."""
        return self.coefficients.get(task, 1.0)

    def alone(self, task: str) -> MergeContext:
        """Return the context of one vector, without what belongs to a subset or a point."""
        return replace(self, vectors={task: self.vectors[task]}, coefficients={}, learned=None)

    def learned_coefficient(self, task: str, name: str) -> float:
        """Return what was learned for a task and a tensor.

        Raises:
            LineageError: if nothing was learned for the task, or for a model of other tensors.
        """
        found = (self.learned or {}).get(task)
        if found is None:
            raise LineageError(
                f"no coefficients were learned for task {task!r}; give them in `learned`"
            )
        if found.dim() == 0:
            return float(found)
        names = learned_names(self.base)
        if found.shape != (len(names),):
            raise LineageError(
                f"what was learned for task {task!r} has shape {tuple(found.shape)}, but the base has "
                f"{len(names)} floating tensors; learn it again for this base"
            )
        return float(found[names.index(name)])

    def statistic(self, name: str, task: str = "") -> State:
        """Return a statistic of a task, or of the base.

        Raises:
            LineageError: if it was not provided.
        """
        found = self.statistics.get(name, {}).get(task)
        if found is None:
            whose = f"of task {task!r}" if task else "of the base"
            raise LineageError(
                f"there is no statistic {name!r} {whose}; give it in `statistics`, or let the workflow make "
                "it (the method's card must list it in `needs`)"
            )
        return found


class Merger(Protocol):
    """A merge method that gives one model.

    Attributes:
        weighs: whether it takes the coefficients of a point into account itself; the vectors of any other
            method are multiplied by them before it sees them.
    """

    weighs: bool

    def prepare(self, context: MergeContext) -> Prepared:
        """Do all the work that lambda has no part in."""
        ...

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return the merged model at lambda = ``scale``, with the keys, shapes and dtypes of ``base``.

        Values are computed in float64 and rounded once.

        Args:
            base: theta_0.
            prepared: what ``prepare`` returned, on the device of ``base``.
            scale: lambda.
            options: the options given to ``prepare``.
            out: tensors to write into, e.g. those of a resident encoder; returned when given.
        """
        ...


class PerTaskMerger(Protocol):
    """A merge method whose model depends on the task that is asked; its card gives ``per_task``."""

    weighs: bool

    def prepare(self, context: MergeContext) -> Prepared:
        """Do all the work that lambda has no part in, for all tasks."""
        ...

    def apply_task(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        task: str,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return the model for one of the merged tasks; otherwise as ``Merger.apply``."""
        ...


class FeatureMerger(Merger, Protocol):
    """A merge method that changes the features of each merged task, too; its card gives ``features``."""

    def features(self, prepared: Prepared, task: str, features: torch.Tensor) -> torch.Tensor:
        """Return what becomes of the merged model's features ``(B, D)`` of a task's images."""
        ...


class LogitMerger(Protocol):
    """A method that merges what experts say, not what they are; its card gives ``logits``."""

    def combine(self, logits: Mapping[str, torch.Tensor], options: Options) -> torch.Tensor:
        """Return the logits ``(n, C)`` of a subset.

        Args:
            logits: expert's task -> its logits ``(n, C)`` on the same images under the same head, in
                canonical order.
            options: the method's options.
        """
        ...


AnyMerger: TypeAlias = Merger | PerTaskMerger | FeatureMerger | LogitMerger


def given_statistic(statistics: Statistics, name: str, task: str) -> State | None:
    """Return a statistic of a task, or of the base where the task is ``""``; None where it is not given.

    Raises:
        LineageError: if statistics by task are given where there is one of the base, or the other way round.
    """
    found = statistics.get(name)
    if not found:
        return None
    if isinstance(next(iter(found.values())), torch.Tensor) != (task == ""):
        shape = "one state, of the base" if task == "" else "a state for each task"
        raise LineageError(f"the statistic {name!r} is {shape}; give it so in `statistics`")
    return cast(State | None, found.get(task) if task else found)


@dataclass(frozen=True)
class Sources:
    """Where the ingredients of merges come from, each asked for when it is needed.

    Attributes:
        vector: task -> tau_t.
        statistic: (name, task) -> a statistic; the task is ``""`` for one of the base.
        learned: subset -> what was learned for it.
    """

    vector: Callable[[str], Mapping[str, torch.Tensor]]
    statistic: Callable[[str, str], State] | None = None
    learned: Callable[[tuple[str, ...]], Learned] | None = None
