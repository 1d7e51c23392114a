"""Task arithmetic: theta = theta_0 + lambda * sum_t w_t tau_t.

Ilharco et al., "Editing Models with Task Arithmetic" (ICLR 2023), section 2; there every w_t is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskgrid.merging.bases.additive import Additive, given_weight, sum_of_weights
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="Task arithmetic",
    paper="Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, section 2",
    options={
        "weights": Option(
            default=None,
            kind="numbers",
            about="weight of each task, by name; null gives every task 1, a negative weight removes one",
            divided_if={"normalize": True},
        ),
        "normalize": Option(default=False, about="divide by the sum of the weights"),
    },
    scope="element",
)


class TaskArithmetic(Additive):
    """Adds the weighted sum of the task vectors, times lambda."""

    def weight(self, task: str, options: Options) -> float:
        """Return the weight that the options give, or 1."""
        return given_weight(options, task)

    def divisor(self, tasks: Sequence[str], options: Options) -> float:
        """Return the sum of the weights where it is asked for, else 1."""
        return sum_of_weights(options, tasks) if options.normalize else 1.0


MERGER = TaskArithmetic()
