"""Merging by hand: experts in, one model out, or one for each task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from taskgrid import plugins
from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, Prepared, Sources, Statistics, given_statistic
from taskgrid.store.weights import State
from taskgrid.vectors import subtract

States: TypeAlias = Mapping[str, Mapping[str, torch.Tensor]]
Scale: TypeAlias = float | Mapping[str, float]


def methods() -> tuple[str, ...]:
    """Return the names of all merge methods, sorted."""
    return tuple(sorted(plugins.names("merger")))


def merge(
    method: str,
    base: Mapping[str, torch.Tensor],
    experts: States,
    scale: Scale | None = None,
    *,
    seed: int = 0,
    statistics: Statistics | None = None,
    learned: Learned | None = None,
    **options: Any,
) -> State:
    """Merge experts into one model.

    Args:
        method: name of a merge method; see ``methods()``.
        base: theta_0, the state all experts started from.
        experts: task -> theta_t, with the keys, shapes and dtypes of ``base``. Their order does not
            matter.
        scale: the scaling coefficient lambda, or one for each task. Default: 0.3, and 1 where the method
            has no coefficient or learns its own.
        seed: for methods that draw.
        statistics: name -> task -> statistic, for a method that needs any; of a statistic of the base,
            name -> statistic.
        learned: coefficients, for a method that learns them.
        **options: the method's own options.

    Returns:
        A state with the keys, shapes and dtypes of ``base``; no memory is shared with the inputs.

    Raises:
        ConfigError: if the method or an option is unknown, a value does not fit, no expert is
            given, or the method gives a model for each task, or none.
        LineageError: if an expert does not fit the base; names the key and both values. Or if the
            method needs statistics of data that are not given.

    Examples:
        >>> base = {"weight": torch.tensor([1.0, 1.0, 1.0])}
        >>> experts = {
        ...     "a": {"weight": torch.tensor([2.0, 1.0, 0.0])},
        ...     "b": {"weight": torch.tensor([1.0, 3.0, 2.0])},
        ... }
        >>> merge("task_arithmetic", base, experts, 0.5)["weight"]
        tensor([1.5000, 2.0000, 1.0000])
        >>> merge("task_arithmetic", base, experts, {"a": 1.0, "b": -0.5})["weight"]
        tensor([ 2.0000,  0.0000, -0.5000])
        >>> merge("ties", base, experts, 1.0, density=1.0)["weight"]
        tensor([2., 3., 2.])
    """
    recipe = MergeRecipe.of(method, options, seed)
    if recipe.per_task:
        raise ConfigError(
            f"merge method {method!r} gives a model for each task; call merge_per_task instead"
        )
    usual = 1.0 if recipe.card.coefficient == "none" or recipe.card.learned else 0.3
    point = usual if scale is None else scale
    prepared, factor = _prepared(recipe, base, experts, point, statistics, learned)
    return recipe.apply(base, prepared, factor)


def merge_per_task(
    method: str,
    base: Mapping[str, torch.Tensor],
    experts: States,
    scale: Scale = 1.0,
    *,
    seed: int = 0,
    statistics: Statistics | None = None,
    learned: Learned | None = None,
    **options: Any,
) -> dict[str, State]:
    """Merge experts with a method that gives a model for each task; arguments as for ``merge``.

    Returns:
        task -> its model. Of a method that gives a single model, that model for every task.

    Examples:
        >>> base = {"weight": torch.zeros(2)}
        >>> experts = {"a": {"weight": torch.tensor([1.0, 4.0])}, "b": {"weight": torch.tensor([3.0, 0.0])}}
        >>> merge_per_task("tall_mask", base, experts)["a"]["weight"]
        tensor([0., 4.])
    """
    recipe = MergeRecipe.of(method, options, seed)
    prepared, factor = _prepared(recipe, base, experts, scale, statistics, learned)
    return {task: recipe.apply(base, prepared, factor, task=task) for task in sorted(experts)}


def _prepared(
    recipe: MergeRecipe,
    base: Mapping[str, torch.Tensor],
    experts: States,
    scale: Scale,
    statistics: Statistics | None,
    learned: Learned | None,
) -> tuple[Prepared, float]:
    recipe.check_weights()
    if not experts:
        raise ConfigError("merge needs at least one expert; for the base alone, use the base")
    for number in scale.values() if isinstance(scale, Mapping) else [scale]:
        if not math.isfinite(number):
            raise ConfigError(f"lambda {number} is not a finite number")
    named, factor = (scale, 1.0) if isinstance(scale, Mapping) else (None, scale)
    recipe.check_point(sorted(experts), factor, named)
    if named is not None and len(set(named.values())) == 1:
        # The same for all is lambda, as in the text of a point.
        (factor,), named = set(named.values()), None
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    sources = Sources(
        vectors.__getitem__,
        None if statistics is None else _given(recipe.name, statistics),
        None if learned is None else lambda _: learned,
    )
    return recipe.prepare(base, sources, sorted(experts), named), factor


def _given(method: str, statistics: Statistics) -> Callable[[str, str], State]:
    def statistic(name: str, task: str) -> State:
        found = given_statistic(statistics, name, task)
        if found is None:
            whose = f"of task {task!r}" if task else "of the base"
            raise LineageError(
                f"merge method {method!r} needs the statistic {name!r} {whose}; give it in `statistics`"
            )
        return found

    return statistic
