"""Averaging: theta = theta_0 + (lambda / T) * sum_t tau_t; at lambda 1 the mean of the experts.

Wortsman et al., "Model soups" (ICML 2022), section 2: the uniform soup.
"""

from __future__ import annotations

from taskgrid.merging.additive import Additive, sum_in_float64
from taskgrid.merging.base import MergeContext, Prepared


class Average(Additive):
    """Adds the mean of the task vectors, times lambda. No options."""

    name = "average"

    def prepare(self, context: MergeContext) -> Prepared:
        """Return (1/T) sum_t tau_t in float64."""
        total = sum_in_float64(list(context.vectors.values()))
        return {key: tensor.div_(len(context.vectors)) for key, tensor in total.items()}


MERGER = Average()
