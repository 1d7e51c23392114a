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
    FeatureMerger,
    Learned,
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
    def learns(self) -> bool:
        """Whether it learns, with these options."""
        return self.card.learns(self.options)

    @property
    def per_task(self) -> bool:
        """Whether the model depends on the task that is asked."""
        return self.card.gives == "per_task"

    def statistics_of(
        self, tasks: Sequence[str], needs: Sequence[str] | None = None
    ) -> list[tuple[str, str]]:
        """Return the statistics that a merge of tasks needs: names with tasks, ``""`` for the base.

        Args:
            tasks: the merged tasks.
            needs: names of statistics, where they are not those that the card ``needs``.
        """
        return [
            (name, task)
            for name in (self.card.needs if needs is None else needs)
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
        # By hand, statistics may be given in the place of what is learned.
        by_hand = sources.learned is None and sources.statistic is not None
        instead = self.card.instead if by_hand else ()
        return MergeContext(
            base,
            vectors,
            self.options,
            self.seed,
            self._statistics(sources, self.statistics_of(tasks, instead or None)),
            weights,
            None if instead else self._learned(sources, tasks),
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

    def check_weights(self) -> None:
        """Refuse a method of which weights alone do not say what it does, so that no file can hold it.

        Raises:
            ConfigError: if it merges logits, or changes features.
        """
        if self.card.gives == "features":
            raise ConfigError(
                f"merge method {self.name!r} changes the features of each task, which no weights do: there "
                "is no model to hand out or export; evaluate it"
            )
        self.weights_merger  # noqa: B018 - says so where it merges no weights

    @property
    def feature_merger(self) -> FeatureMerger:
        """The method, which changes features."""
        return cast(FeatureMerger, self.merger)

    @property
    def logit_merger(self) -> LogitMerger:
        """The method, which merges logits."""
        return cast(LogitMerger, self.merger)

    def _learned(self, sources: Sources, tasks: tuple[str, ...]) -> Learned | None:
        if not self.learns:
            return None
        if sources.learned is None:
            also = "".join(f", or the statistic {name!r}" for name in self.card.instead)
            raise LineageError(
                f"merge method {self.name!r} learns from images; let the workflow's rule `learn` do it, "
                f"or give `learned`{also}"
            )
        return sources.learned(tasks)

    def _statistics(
        self, sources: Sources, wanted: Sequence[tuple[str, str]]
    ) -> Mapping[str, Mapping[str, State]]:
        if self.card.needs and sources.statistic is None:
            raise LineageError(
                f"merge method {self.name!r} needs statistics of data ({', '.join(self.card.needs)}); give "
                "`statistics`, or use it through the workflow, which makes them"
            )
        found: dict[str, dict[str, State]] = {}
        for name, task in wanted:
            assert sources.statistic is not None
            found.setdefault(name, {})[task] = sources.statistic(name, task)
        return found


def _times(vector: Mapping[str, torch.Tensor], weight: float) -> State:
    # float32 times a double, rounded once.
    return {key: (delta.double() * weight).to(delta.dtype) for key, delta in vector.items()}
