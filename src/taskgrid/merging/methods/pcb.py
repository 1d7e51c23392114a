"""PCB: balance each entry within its vector and against the other tasks', keep the largest, take a mean.

Du et al., "Parameter Competition Balancing for Model Merging" (NeurIPS 2024), section 3.
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="PCB-Merging",
    paper="Du et al., Parameter Competition Balancing, NeurIPS 2024, section 3",
    options={
        "ratio": Option(
            default=0.1,
            above=0,
            most=1,
            about="share of each vector's entries that stays, those of the largest balance",
            origin="the paper's code",
        ),
        "clamp": Option(
            default=1e-4,
            least=0,
            below=0.5,
            about="share of each vector's magnitudes that is clamped at either end",
            origin="the paper's code",
        ),
    },
)

_LEAST = 1e-12
"""The smallest sum of weights that a mean is divided by, as in the paper's code."""


class Pcb(Line):
    """Adds the balanced mean, times lambda."""

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction in float64."""
        vectors = [torch.cat([d.reshape(-1) for d in v.values()]) for v in context.vectors.values()]
        total = vectors[0].double()
        for vector in vectors[1:]:
            total = total + vector
        mean, weights = torch.zeros_like(total), torch.zeros_like(total)
        for vector in vectors:
            sizes = _clamped(vector.abs(), context.options.clamp).double()
            weight = _weights(vector, sizes, total, len(vectors), context.options)
            mean += sizes.mul_(vector.sign()).mul_(weight)
            weights += weight
        mean /= weights.clamp_(min=_LEAST)
        shapes = {name: delta.shape for name, delta in next(iter(context.vectors.values())).items()}
        parts = torch.split(mean, [shape.numel() for shape in shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}


def _weights(
    vector: torch.Tensor, sizes: torch.Tensor, total: torch.Tensor, tasks: int, options: Options
) -> torch.Tensor:
    """Return what each entry counts for, from 0 to 1: exp(T n^2) tanh(tau sum tau), cut off below."""
    balance = _spread(sizes).square_().mul_(tasks).exp_()
    balance *= (vector * total).tanh_()
    least = _at(balance, int(len(balance) * (1 - options.ratio)))
    return _spread(balance.clamp_(min=least))


def _clamped(sizes: torch.Tensor, share: float) -> torch.Tensor:
    count = len(sizes)
    low, high = _at(sizes, int(count * share)), _at(sizes, int(count * (1 - share) - 1))
    return sizes.clamp(low, high)


def _spread(values: torch.Tensor) -> torch.Tensor:
    """Return values from 0 to 1; all 0 where they are one value."""
    low, high = values.aminmax()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


def _at(values: torch.Tensor, place: int) -> torch.Tensor:
    """Return the value at a place in ascending order."""
    return values.kthvalue(min(max(place, 0), len(values) - 1) + 1).values


MERGER = Pcb()
