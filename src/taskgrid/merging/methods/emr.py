"""EMR: elect one vector for all tasks, mask it for each, rescale what is left.

Huang et al., "EMR-Merging: Tuning-Free High-Performance Model Merging" (NeurIPS 2024), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.merging.bases.additive import add_direction
from taskgrid.merging.bases.masks import masked_direction, pack
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.plugins.storage import Storage
from taskgrid.store.weights import State

CARD = MergerCard(
    title="EMR-Merging",
    paper="Huang et al., EMR-Merging, NeurIPS 2024, section 3",
    options={
        "rescale": Option(
            default="sums",
            choices=("sums", "means"),
            about="sizes that the rescaler compares: sums of magnitudes, or means per tensor added up",
            origin="the paper's equation; its code takes means",
        ),
        "zero_sign": Option(
            default="none",
            choices=("none", "negative"),
            about="the sign where the entries add up to exactly zero; none leaves such a weight at the base",
            origin="the paper's equation; its code takes -",
        ),
    },
    gives="per_task",
    storage=Storage(shared=32, task=1, numbers=1),
)


class Emr:
    """Keeps the elected vector once, and a bit per weight and a number per task."""

    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the elected vector, float32, and for each task packed masks and a rescaler, float64."""
        options, prepared = context.options, {}
        sizes = {task: [0.0, 0.0] for task in context.tasks}
        for name in sorted(next(iter(context.vectors.values()))):
            elected = _elected([v[name] for v in context.vectors.values()], options.zero_sign)
            prepared[f"elected/{name}"] = elected
            for task, vector in context.vectors.items():
                mask = vector[name].sign() * elected.sign() > 0
                prepared[f"mask/{task}/{name}"] = pack(mask)
                parts = (vector[name], torch.where(mask, elected, 0))
                for place, part in enumerate(parts):
                    size = float(part.double().abs().sum())
                    count = part.numel() if options.rescale == "means" else 1
                    sizes[task][place] += size / max(count, 1)
        for task, (own, left) in sizes.items():
            # A task that agrees with nothing has nothing to rescale.
            factor = own / left if left > 0 else 1.0
            prepared[f"rescale/{task}"] = torch.tensor(factor, dtype=torch.float64)
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
        """Return theta_0 + lambda * rescaler_t * m_t * tau_elected."""
        factor = float(prepared[f"rescale/{task}"])
        direction = masked_direction(prepared, "elected", task, base, factor)
        return add_direction(base, direction, scale, out)


def _elected(vectors: list[torch.Tensor], zero_sign: str) -> torch.Tensor:
    """Return the sign of the sum times the largest magnitude of that sign."""
    total = vectors[0].double()
    for vector in vectors[1:]:
        total = total + vector
    signs = total.sign()
    if zero_sign == "negative":
        signs = torch.where(signs == 0, -1.0, signs)
    signs, largest = signs.float(), torch.zeros_like(vectors[0])
    for vector in vectors:
        largest = torch.maximum(largest, vector * signs)
    return largest * signs


MERGER = Emr()
