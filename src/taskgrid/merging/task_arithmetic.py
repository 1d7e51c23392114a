"""Task arithmetic: theta = theta_0 + lambda * sum_t tau_t.

Ilharco et al., "Editing Models with Task Arithmetic" (ICLR 2023), section 2.
"""

from __future__ import annotations

from taskgrid.merging.additive import Additive, sum_in_float64
from taskgrid.merging.base import MergeContext, Prepared


class TaskArithmetic(Additive):
    """Adds the sum of the task vectors, times lambda. No options."""

    name = "task_arithmetic"

    def prepare(self, context: MergeContext) -> Prepared:
        """Return sum_t tau_t in float64."""
        return sum_in_float64(list(context.vectors.values()))


MERGER = TaskArithmetic()
