"""A model for each task: its own vector, and a share of those of the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.merging.bases.additive import add_direction, weighted_sum
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.plugins.storage import Storage
from taskgrid.store.weights import State

CARD = MergerCard(
    title="Own vector in company",
    options={"share": Option(default=0.5, about="of the others' vectors")},
    gives="per_task",
    scope="element",
    storage=Storage(task=32),
)


class Company:
    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        share, prepared = context.options.share, {}
        for task in context.tasks:
            weights = [(1.0 if other == task else share, other) for other in context.tasks]
            total = weighted_sum([(weight, context.vectors[other]) for weight, other in weights])
            prepared |= {f"{task}/{key}": tensor for key, tensor in total.items()}
        return prepared

    def apply_task(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        task: str,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        own = {key: prepared[f"{task}/{key}"] for key in base if f"{task}/{key}" in prepared}
        return add_direction(base, own, scale, out)


MERGER = Company()
