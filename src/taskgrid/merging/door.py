"""Merging by hand: experts in, one model out, or one for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from taskgrid import plugins
from taskgrid.errors import ConfigError, LineageError
from taskgrid.lattice.points import Coefficients, point_text, read_point
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, Prepared, Sources
from taskgrid.store.weights import State
from taskgrid.vectors import subtract

States = Mapping[str, Mapping[str, torch.Tensor]]
Statistics = Mapping[str, Mapping[str, State]]


def methods() -> tuple[str, ...]:
    """Return the names of all merge methods, sorted."""
    return tuple(sorted(plugins.names("merger")))


def merge(
    method: str,
    base: Mapping[str, torch.Tensor],
    experts: States,
    scale: float | Mapping[str, float] = 0.3,
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
        scale: the scaling coefficient lambda, or one for each task.
        seed: for methods that draw.
        statistics: name -> task -> statistic, for a method that needs any.
        learned: coefficients, for a method that learns them.
        **options: the method's own options.

    Returns:
        A state with the keys, shapes and dtypes of ``base``; no memory is shared with the inputs.

    Raises:
        ConfigError: if the method or an option is unknown, a value does not fit, no expert is
            given, or the method gives a model for each task, or none.
        LineageError: if an expert does not fit the base; names the key and both values. Or if the
            method needs statistics of data that are not given.

    Example:
        >>> merged = merge("task_arithmetic", base, {"a": expert_a, "b": expert_b}, 0.4)  # doctest: +SKIP
    """
    recipe = MergeRecipe.of(method, options, seed)
    if recipe.per_task:
        raise ConfigError(
            f"merge method {method!r} gives a model for each task; call merge_per_task instead"
        )
    prepared, point = _prepared(recipe, base, experts, scale, statistics, learned)
    return recipe.apply(base, prepared, point.lambda_value)


def merge_per_task(
    method: str,
    base: Mapping[str, torch.Tensor],
    experts: States,
    scale: float | Mapping[str, float] = 1.0,
    *,
    seed: int = 0,
    statistics: Statistics | None = None,
    learned: Learned | None = None,
    **options: Any,
) -> dict[str, State]:
    """Merge experts with a method that gives a model for each task; arguments as for ``merge``.

    Returns:
        task -> its model. Of a method that gives a single model, that model for every task.
    """
    recipe = MergeRecipe.of(method, options, seed)
    prepared, point = _prepared(recipe, base, experts, scale, statistics, learned)
    return {
        task: recipe.apply(base, prepared, point.lambda_value, task=task)
        for task in sorted(experts)
    }


def _prepared(
    recipe: MergeRecipe,
    base: Mapping[str, torch.Tensor],
    experts: States,
    scale: float | Mapping[str, float],
    statistics: Statistics | None,
    learned: Learned | None,
) -> tuple[Prepared, Coefficients]:
    if not experts:
        raise ConfigError("merge needs at least one expert; for the base alone, use the base")
    if isinstance(scale, Mapping) and scale.keys() != experts.keys():
        raise ConfigError(
            f"coefficients are given for {', '.join(sorted(scale))}, experts for "
            f"{', '.join(sorted(experts))}; give one for each expert"
        )
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    point = read_point(point_text(scale))

    def statistic(name: str, task: str) -> State:
        try:
            return (statistics or {})[name][task]
        except KeyError:
            whose = f"of task {task!r}" if task else "of the base"
            raise LineageError(
                f"merge method {recipe.name!r} needs the statistic {name!r} {whose}; give it in `statistics`"
            ) from None

    sources = Sources(
        vectors.__getitem__,
        statistic if statistics is not None else None,
        (lambda _: learned) if learned is not None else None,
    )
    return recipe.prepare(base, sources, sorted(experts), point.named), point
