"""One bit per weight: theta = theta_0 + lambda * sum_t mean|tau_t| sign(tau_t), tensor by tensor."""

from __future__ import annotations

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="One bit per weight",
    options={
        "size": Option(default="mean", choices=("mean", "max"), about="what stands for |tau|")
    },
    scope="tensor",
)


class OneBit(Line):
    def prepare(self, context: MergeContext) -> Prepared:
        direction: Prepared = {}
        for vector in context.vectors.values():
            for key, delta in vector.items():
                sizes = delta.double().abs()
                size = sizes.mean() if context.options.size == "mean" else sizes.max()
                direction[key] = direction.get(key, 0) + size * delta.double().sign()
        return direction


MERGER = OneBit()
