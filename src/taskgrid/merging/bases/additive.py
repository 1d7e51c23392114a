"""What methods share that add one direction to the base: theta_0 + c * direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from taskgrid.merging.bases.algebra import Fold
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.options import Options as PluginOptions
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

    Options: type[PluginOptions] = PluginOptions
    needs: frozenset[str] = frozenset()

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: PluginOptions,
        out: State | None = None,
    ) -> State:
        """Return theta_0 + lambda * direction."""
        return add_direction(base, prepared, scale, out)


class Additive(Line):
    """A method whose direction is sum_t w_t tau_t; no options, no statistics.

    A method says its weights and nothing else. What is linear in theta can then be had from one
    number per task: streams of tensors, tangent models.
    """

    def weights(self, tasks: Sequence[str]) -> dict[str, float]:
        """Return w_t for each task of a subset."""
        raise NotImplementedError

    def prepare(self, context: MergeContext) -> Prepared:
        """Return sum_t w_t tau_t in float64, added in the canonical order of the tasks."""
        weights = self.weights(tuple(context.vectors))
        return weighted_sum([(weights[task], vector) for task, vector in context.vectors.items()])


class Sum(Fold, Additive):
    """An additive method with one weight for all tasks of a subset: its plain sum, then the weight.

    A method says its ``weights``, and in ``finish`` what becomes of a sum.
    """

    def begin(self, lifted: Prepared) -> Prepared:
        """Return the first vector in float64."""
        return weighted_sum([(1.0, lifted)])

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        """Add one vector."""
        if reuse:
            return {key: total[key].add_(delta) for key, delta in lifted.items()}
        return {key: total[key] + delta for key, delta in lifted.items()}
