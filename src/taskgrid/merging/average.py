"""Averaging: theta = theta_0 + (lambda / T) * sum_t tau_t; at lambda 1 the mean of the experts.

Wortsman et al., "Model soups" (ICML 2022), section 2: the uniform soup.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.merging.additive import add_direction, sum_in_float64
from taskgrid.merging.base import Algebra, MergeContext, Prepared
from taskgrid.options import Options as PluginOptions
from taskgrid.store.weights import State


class Average:
    """Adds the mean of the task vectors, times lambda. No options."""

    name = "average"
    Options: type[PluginOptions] = PluginOptions
    algebra: Algebra = "additive"
    needs: frozenset[str] = frozenset()

    def prepare(self, context: MergeContext) -> Prepared:
        """Return (1/T) sum_t tau_t in float64."""
        total = sum_in_float64(list(context.vectors.values()))
        return {key: tensor.div_(len(context.vectors)) for key, tensor in total.items()}

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: PluginOptions,
        out: State | None = None,
    ) -> State:
        """Return theta_0 + (lambda / T) sum_t tau_t."""
        return add_direction(base, prepared, scale, out)


MERGER = Average()
