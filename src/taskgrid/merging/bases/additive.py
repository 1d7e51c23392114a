"""What methods share that add one direction to the base: theta_0 + c * direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from taskgrid.errors import ConfigError
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State
from taskgrid.vectors import add_scaled


def weighted_sum(terms: Sequence[tuple[float, Mapping[str, torch.Tensor]]]) -> Prepared:
    """Return the sum of weighted task vectors in float64.

    A float64 sum of float32 numbers is exact as long as their exponents lie within 29 bits, so one
    task at lambda 1 gives its expert back and the merge does not depend on rounding in between. It
    costs twice the memory of one vector, once per subset; compensated float32 would need the same
    two words per weight and more arithmetic.

    Args:
        terms: weights with their task vectors, at least one, in the order in which they are added.
    """
    first, start = terms[0]
    total = {key: delta.to(torch.float64, copy=True) for key, delta in start.items()}
    if first != 1:
        for tensor in total.values():
            tensor.mul_(first)
    for weight, vector in terms[1:]:
        for key, delta in vector.items():
            total[key].add_(delta, alpha=weight)
    return total


def learned_sum(context: MergeContext) -> Prepared:
    """Return sum_t c_t tau_t in float64, added in the canonical order of the tasks.

    c_t is what was learned, times the point's coefficient where the method ``weighs``.
    """
    direction: Prepared = {}
    for name in context.vectors[context.tasks[0]]:
        terms = [
            (
                context.learned_coefficient(task, name) * context.coefficient(task),
                {name: vector[name]},
            )
            for task, vector in context.vectors.items()
        ]
        direction |= weighted_sum(terms)
    return direction


def add_direction(
    base: Mapping[str, torch.Tensor],
    direction: Mapping[str, torch.Tensor],
    scale: float,
    out: State | None = None,
) -> State:
    """Return ``base + scale * direction``: one fused multiply-add per tensor, rounded once.

    Args:
        base: theta_0; tensors without a direction are copied.
        direction: float64 tensors by name.
        scale: lambda.
        out: tensors to write into; returned when given.
    """
    target = out if out is not None else {}
    with torch.no_grad():
        for key, tensor in base.items():
            target[key] = add_scaled(
                tensor, direction.get(key), scale, out[key] if out is not None else None
            )
    return target


class Line:
    """A method whose prepared tensors are a direction; theta moves along it as lambda grows."""

    weighs = False

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return theta_0 + lambda * direction."""
        return add_direction(base, prepared, scale, out)


class Additive(Line):
    """A method whose direction is sum_t w_t tau_t / d: it says w and d, and nothing else.

    What is linear in theta can then be had from one number per task: sums that are extended by one
    task, streams of tensors, tangent models. All of these take w and d at their word, so a subclass that
    would compute anything else is refused where it is defined.
    """

    weighs = True

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse a subclass that computes on its own."""
        super().__init_subclass__(**more)
        for own in ("prepare", "apply", "lift", "begin", "step", "finish"):
            if own in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{own} would be ignored: an Additive method is its weights; "
                    "subclass Line, Fold or Factored instead"
                )

    def weight(self, task: str, options: Options) -> float:
        """Return w_t, which does not depend on the subset."""
        return 1.0

    def divisor(self, tasks: Sequence[str], options: Options) -> float:
        """Return d of a subset."""
        return 1.0

    def weights(
        self,
        tasks: Sequence[str],
        options: Options,
        coefficients: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Return w_t c_t / d for each task of a subset; ``coefficients`` are the point's c_t, or none."""
        over, by = self.divisor(tasks, options), coefficients or {}
        return {task: self.weight(task, options) * by.get(task, 1.0) / over for task in tasks}

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction in float64, added in the canonical order of the tasks."""
        options = context.options
        total = weighted_sum(
            [
                (self.weight(task, options) * context.coefficient(task), vector)
                for task, vector in context.vectors.items()
            ]
        )
        return self.divided(total, context.tasks, options)

    def divided(self, total: Prepared, tasks: Sequence[str], options: Options) -> Prepared:
        """Return a sum over d, divided once, because 1/3 is no float; the sum is not changed."""
        over = self.divisor(tasks, options)
        return total if over == 1 else {key: tensor / over for key, tensor in total.items()}


def given_weight(options: Options, task: str) -> float:
    """Return the weight that the option ``weights`` gives a task; 1 where it names no weights.

    Raises:
        ConfigError: if it names weights, but not this task's.
    """
    if options.weights is None:
        return 1.0
    if task not in options.weights:
        raise ConfigError(
            f"the option `weights` names no weight for task {task!r}; give one for every task"
        )
    return float(options.weights[task])


def sum_of_weights(options: Options, tasks: Sequence[str]) -> float:
    """Return the sum of the weights of a subset.

    Raises:
        ConfigError: if it is zero.
    """
    total = sum(given_weight(options, task) for task in tasks)
    if total == 0:
        raise ConfigError(
            f"the weights of {'+'.join(tasks)} add up to zero, which nothing can be divided by"
        )
    return total
