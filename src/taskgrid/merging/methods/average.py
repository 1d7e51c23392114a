"""Averaging: theta = theta_0 + lambda * sum_t w_t tau_t / sum_t w_t; at lambda 1 the mean of the experts.

Wortsman et al., "Model soups" (ICML 2022), section 2: the uniform soup, where every w_t is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskgrid.merging.bases.additive import Additive, given_weight, sum_of_weights
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="Averaging",
    paper="Wortsman et al., Model soups, ICML 2022, section 2",
    options={
        "weights": Option(
            default=None,
            kind="numbers",
            about="weight of each task, by name; null gives every task 1, a negative weight removes one",
            divided_if={},
        ),
    },
    scope="element",
)


class Average(Additive):
    """Adds the weighted mean of the task vectors, times lambda."""

    def weight(self, task: str, options: Options) -> float:
        """Return the weight that the options give, or 1."""
        return given_weight(options, task)

    def divisor(self, tasks: Sequence[str], options: Options) -> float:
        """Return the sum of the weights."""
        return sum_of_weights(options, tasks)


MERGER = Average()
