"""Task arithmetic: theta = theta_0 + lambda * sum_t tau_t.

Ilharco et al., "Editing Models with Task Arithmetic" (ICLR 2023), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskgrid.merging.bases.additive import Sum


class TaskArithmetic(Sum):
    """Adds the sum of the task vectors, times lambda. No options."""

    name = "task_arithmetic"

    def weights(self, tasks: Sequence[str]) -> dict[str, float]:
        """Return one for each task."""
        return dict.fromkeys(tasks, 1.0)


MERGER = TaskArithmetic()
