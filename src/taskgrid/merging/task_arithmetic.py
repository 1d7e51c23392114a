"""Task arithmetic: theta = theta_0 + lambda * sum_t tau_t.

Ilharco et al., "Editing Models with Task Arithmetic" (ICLR 2023), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.merging.additive import add_direction, sum_in_float64
from taskgrid.merging.base import Algebra, MergeContext, Prepared
from taskgrid.options import Options as PluginOptions
from taskgrid.store.weights import State


class TaskArithmetic:
    """Adds the sum of the task vectors, times lambda. No options."""

    name = "task_arithmetic"
    Options: type[PluginOptions] = PluginOptions
    algebra: Algebra = "additive"
    needs: frozenset[str] = frozenset()

    def prepare(self, context: MergeContext) -> Prepared:
        """Return sum_t tau_t in float64."""
        return sum_in_float64(list(context.vectors.values()))

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: PluginOptions,
        out: State | None = None,
    ) -> State:
        """Return theta_0 + lambda * sum_t tau_t."""
        return add_direction(base, prepared, scale, out)


MERGER = TaskArithmetic()
