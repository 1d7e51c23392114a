"""Points as seen from an origin: their lengths, the angles between them, and combinations of them.

All geodesic merges are sums of their inputs, with coefficients that follow from a Gram matrix.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from taskgrid.merging.bases.additive import Line, weighted_sum
from taskgrid.merging.seam import MergeContext, Prepared

_AT_ONCE = 1 << 16
"""Entries of a point that are in memory in float64 at a time."""


def gram(
    vectors: Sequence[torch.Tensor], origin: torch.Tensor | None = None, *, rows: bool = False
) -> torch.Tensor:
    """Return the inner products of points, float64.

    Args:
        vectors: T tensors of one shape.
        origin: added to each of them, without a copy of it all; None adds nothing.
        rows: whether each row (the last axis) is a point of its own.

    Returns:
        ``(T, T)``, or ``(R, T, T)`` for R rows.
    """
    flat = [_rows(vector, rows) for vector in vectors]
    start = None if origin is None else _rows(origin, rows)
    count, width = flat[0].shape
    total = flat[0].new_zeros((count, len(flat), len(flat)), dtype=torch.float64)
    high = max(1, _AT_ONCE // max(width, 1))
    for row, column in itertools.product(range(0, count, high), range(0, width, _AT_ONCE)):
        part = (slice(row, row + high), slice(column, column + _AT_ONCE))
        points = torch.stack([each[part].double() for each in flat], dim=1)
        if start is not None:
            points += start[part].double()[:, None]
        total[part[0]] += points @ points.mT
    return total if rows else total[0]


def cosines(products: torch.Tensor) -> torch.Tensor:
    """Return the cosines of a Gram matrix ``(..., T, T)``; 0 where a point is the origin."""
    lengths = products.diagonal(dim1=-2, dim2=-1).sqrt()
    over = lengths[..., :, None] * lengths[..., None, :]
    return torch.where(over > 0, products / over, 0).clamp(-1, 1)


class OnSphere(Line, ABC):
    """A method that moves from theta_0 to a combination of points, tensor by tensor.

    By the option ``on`` the points are the task vectors, or the experts' weights themselves.
    """

    @abstractmethod
    def coefficients(self, products: torch.Tensor, context: MergeContext) -> torch.Tensor:
        """Return the coefficients of at least two points, ``(T,)``.

        Args:
            products: their Gram matrix ``(T, T)``, float64, on the CPU.
            context: the subset's.
        """

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction from theta_0 to the combination, float64."""
        vectors = list(context.vectors.values())
        direction: Prepared = {}
        for name in vectors[0]:
            each = [vector[name] for vector in vectors]
            origin = context.base[name] if context.options.on == "weights" else None
            by = [1.0]
            if len(each) > 1:
                products = gram(each, origin).cpu()
                by = self.coefficients(products, context).tolist()
            direction |= weighted_sum([(c, {name: one}) for c, one in zip(by, each, strict=True)])
            # Of equal points the coefficients add up to 1 but for rounding, which must move nothing.
            if origin is not None and any(bool(one.any()) for one in each):
                direction[name].add_(origin, alpha=sum(by) - 1)
        return direction


def _rows(tensor: torch.Tensor, rows: bool) -> torch.Tensor:
    if rows and tensor.dim() > 1:
        return tensor.flatten(0, -2)
    return tensor.reshape(1, tensor.numel())
