"""Averaging: theta = theta_0 + (lambda / T) * sum_t tau_t; at lambda 1 the mean of the experts.

Wortsman et al., "Model soups" (ICML 2022), section 2: the uniform soup.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskgrid.merging.bases.additive import Sum
from taskgrid.merging.seam import Prepared


class Average(Sum):
    """Adds the mean of the task vectors, times lambda. No options."""

    name = "average"

    def weights(self, tasks: Sequence[str]) -> dict[str, float]:
        """Return 1/T for each of T tasks."""
        return dict.fromkeys(tasks, 1 / len(tasks))

    def finish(self, total: Prepared, tasks: Sequence[str]) -> Prepared:
        """Return (1/T) sum_t tau_t in float64; divided once, because 1/3 is no float."""
        return {key: tensor / len(tasks) for key, tensor in total.items()}


MERGER = Average()
