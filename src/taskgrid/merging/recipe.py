"""Recipes: a merge method with its options, and what every user of one does with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from taskgrid import plugins
from taskgrid.errors import ConfigError, LineageError
from taskgrid.lattice.subsets import canonical_subset, subset_name
from taskgrid.merging.seam import (
    AnyMerger,
    LogitMerger,
    MergeContext,
    Merger,
    PerTaskMerger,
    Prepared,
    Sources,
)
from taskgrid.plugins.cards import MergerCard, Scope, merger_card, plugin_options, statistic_card
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State


@dataclass(frozen=True)
class MergeRecipe:
    """How task vectors are merged.

    Attributes:
        name: the method.
        card: what it says of itself.
        merger: the method.
        options: its options.
        seed: what its random draws come from.
    """

    name: str
    card: MergerCard
    merger: AnyMerger
    options: Options
    seed: int = 0

    @classmethod
    def of(cls, method: str, options: Mapping[str, Any], seed: int | None = None) -> MergeRecipe:
        """Return the recipe of a method by name.

        Raises:
            ConfigError: if there is no such method, or it has no such option.
        """
        checked = plugin_options("merger", method, options)
        merger = cast(AnyMerger, plugins.load("merger", method).MERGER)
        return cls(method, merger_card(method), merger, checked, seed or 0)

    @property
    def scope(self) -> Scope:
        """What the method must see at once with these options; its card says it for all options."""
        narrowed = getattr(self.merger, "scope", None)
        return narrowed(self.options) if narrowed is not None else self.card.scope

    @property
    def per_task(self) -> bool:
        """Whether the model depends on the task that is asked."""
        return self.card.gives == "per_task"

    def statistics_of(self, tasks: Sequence[str]) -> list[tuple[str, str]]:
        """Return the statistics that a merge of tasks needs: names with tasks, ``""`` for the base."""
        return [
            (name, task)
            for name in self.card.needs
            for task in (tasks if statistic_card(name).per == "task" else ("",))
        ]

    def context(
        self,
        base: Mapping[str, torch.Tensor],
        sources: Sources,
        subset: Sequence[str],
        coefficients: Mapping[str, float] | None = None,
    ) -> MergeContext:
        """Return what ``prepare`` is to look at.

        Args:
            base: theta_0.
            sources: gives vectors, statistics, learned coefficients.
            subset: the merged tasks.
            coefficients: task -> coefficient, where the point names them.

        Raises:
            ConfigError: if coefficients are named for other tasks than these.
            LineageError: if a statistic or learned coefficients are not there.
        """
        tasks, weights = canonical_subset(subset), dict(coefficients or {})
        self.check_point(tasks, 1.0, weights or None)
        vectors = {task: sources.vector(task) for task in tasks}
        if weights and not getattr(self.merger, "weighs", False):
            vectors = {task: _times(vector, weights[task]) for task, vector in vectors.items()}
        learned = None
        if self.card.learned:
            if sources.learned is None:
                raise LineageError(
                    f"merge method {self.name!r} learns from images; let the workflow's rule `learn` do it, "
                    "or give `learned`"
                )
            learned = sources.learned(tasks)
        return MergeContext(
            base,
            vectors,
            self.options,
            self.seed,
            self._statistics(sources, tasks),
            weights,
            learned,
        )

    def prepare(
        self,
        base: Mapping[str, torch.Tensor],
        sources: Sources,
        subset: Sequence[str],
        coefficients: Mapping[str, float] | None = None,
    ) -> Prepared:
        """Prepare the merge of a subset; arguments as for ``context``."""
        return self.weights_merger.prepare(self.context(base, sources, subset, coefficients))

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        *,
        task: str | None = None,
        out: State | None = None,
    ) -> State:
        """Return the merged model at a lambda; of a method with a model per task, that of ``task``."""
        if self.per_task:
            assert task is not None, "check_task says so to people"
            model = cast(PerTaskMerger, self.merger)
            return model.apply_task(base, prepared, task, scale, self.options, out)
        return cast(Merger, self.merger).apply(base, prepared, scale, self.options, out)

    def check_point(
        self, subset: Sequence[str], scale: float, coefficients: Mapping[str, float] | None = None
    ) -> None:
        """Refuse a point that the method does not have.

        Args:
            subset: the merged tasks.
            scale: lambda; 1 where coefficients are named.
            coefficients: task -> coefficient, where the point names them.

        Raises:
            ConfigError: if the method merges another number of tasks, it has no coefficient, or they are
                not one for each task.
        """
        if self.card.tasks not in (None, len(subset)):
            raise ConfigError(
                f"merge method {self.name!r} merges {self.card.tasks} tasks, but {subset_name(subset)} has "
                f"{len(subset)}; name {self.card.tasks}"
            )
        if coefficients is not None and coefficients.keys() != set(subset):
            raise ConfigError(
                f"coefficients are given for {', '.join(sorted(coefficients)) or 'no task'}, but "
                f"{', '.join(sorted(subset))} are merged; give one for each of these"
            )
        if self.card.coefficient == "none" and (scale != 1 or coefficients):
            raise ConfigError(
                f"merge method {self.name!r} has no coefficient; its only point is 1.00"
            )

    def check_task(self, subset: Sequence[str], task: str | None) -> None:
        """Refuse a task whose model is asked for where the method has none.

        Raises:
            ConfigError: if the method gives a model per task and ``task`` is none of the merged ones, or it
                gives a single model and there is one.
        """
        if self.per_task and task not in subset:
            said = "none is named" if task is None else f"{task!r} is not one of them"
            raise ConfigError(
                f"merge method {self.name!r} gives a model for each of {', '.join(sorted(subset))}, and "
                f"{said}; name the one whose model you want"
            )
        if task is not None and not self.per_task:
            raise ConfigError(
                f"merge method {self.name!r} gives a single model; leave out the task {task!r}"
            )

    @property
    def weights_merger(self) -> Merger | PerTaskMerger:
        """The method, which merges weights.

        Raises:
            ConfigError: if it merges logits.
        """
        if self.card.gives == "logits":
            raise ConfigError(
                f"merge method {self.name!r} merges logits, not weights: there is no model to prepare or "
                "export; evaluate it"
            )
        return cast(Merger | PerTaskMerger, self.merger)

    @property
    def logit_merger(self) -> LogitMerger:
        """The method, which merges logits."""
        return cast(LogitMerger, self.merger)

    def _statistics(
        self, sources: Sources, tasks: Sequence[str]
    ) -> Mapping[str, Mapping[str, State]]:
        if self.card.needs and sources.statistic is None:
            raise LineageError(
                f"merge method {self.name!r} needs statistics of data ({', '.join(self.card.needs)}); give "
                "`statistics`, or use it through the workflow, which makes them"
            )
        found: dict[str, dict[str, State]] = {}
        for name, task in self.statistics_of(tasks):
            assert sources.statistic is not None
            found.setdefault(name, {})[task] = sources.statistic(name, task)
        return found


def _times(vector: Mapping[str, torch.Tensor], weight: float) -> State:
    # float32 times a double, rounded once.
    return {key: (delta.double() * weight).to(delta.dtype) for key, delta in vector.items()}
