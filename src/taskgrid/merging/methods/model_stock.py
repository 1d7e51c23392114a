"""Model Stock: how far to go from the base to the mean of the experts follows from their angle.

Jang et al., "Model Stock: All We Need Is Just a Few Fine-Tuned Models" (ECCV 2024), equation 3 and
section 4.2: t = N cos / (1 + (N - 1) cos), theta = t mean_t theta_t + (1 - t) theta_0, layer by layer.
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.additive import Line, weighted_sum
from taskgrid.merging.bases.sphere import cosines, gram
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="Model Stock",
    paper="Jang et al., Model Stock, ECCV 2024, section 4.2",
    options={
        "mean_of": Option(
            default="angles",
            choices=("angles", "cosines"),
            about="what is averaged over the pairs of more than two experts",
            origin="FusionBench; mergekit averages cosines; the paper says neither",
        ),
        "rows": Option(
            default=False,
            about="one angle for each row (the last axis) instead of one for each tensor",
            origin="mergekit's filter_wise",
        ),
    },
    scope="tensor",
)

_POLE = 1e-8
"""Denominators that are smaller say nothing (FusionBench adds as much)."""


class ModelStock(Line):
    """Adds t times the mean of the task vectors, times lambda."""

    def prepare(self, context: MergeContext) -> Prepared:
        """Return t * mean_t tau_t, float64, t by tensor or by row."""
        vectors, options = list(context.vectors.values()), context.options
        total = weighted_sum([(1.0, vector) for vector in vectors])
        if len(vectors) == 1:
            return total
        for name, tensor in total.items():
            products = gram([vector[name] for vector in vectors], rows=options.rows)
            shares = _shares(cosines(products), options.mean_of).to(tensor.device)
            by_row = options.rows and tensor.dim() > 1
            if by_row:
                shares = shares.view(*tensor.shape[:-1], 1)
            tensor.mul_(shares if by_row else shares.reshape(())).div_(len(vectors))
        return total


def _shares(pairs: torch.Tensor, mean_of: str) -> torch.Tensor:
    """Return t of cosines ``(..., N, N)``; 0 at its pole, where experts pull apart with equal force."""
    count = pairs.shape[-1]
    rows, columns = torch.triu_indices(count, count, offset=1, device=pairs.device)
    each = pairs[..., rows, columns]
    cosine = each.mean(-1) if mean_of == "cosines" else each.arccos().mean(-1).cos()
    under = 1 + (count - 1) * cosine
    return torch.where(under.abs() < _POLE, 0, count * cosine / under)


MERGER = ModelStock()
