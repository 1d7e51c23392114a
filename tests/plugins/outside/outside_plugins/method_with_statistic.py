"""Weights by a statistic: theta = theta_0 + lambda * sum_t w_t tau_t, w_t the task's share of the norms."""

from __future__ import annotations

from taskgrid.merging.bases.additive import Line, weighted_sum
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard

CARD = MergerCard(title="Average by the norm of features", needs=("norms",), scope="element")


class ByNorm(Line):
    def prepare(self, context: MergeContext) -> Prepared:
        norms = {task: float(context.statistic("norms", task)["norm"]) for task in context.tasks}
        total = sum(norms.values())
        return weighted_sum(
            [(norms[task] / total, context.vectors[task]) for task in context.tasks]
        )


MERGER = ByNorm()
