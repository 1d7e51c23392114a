"""Multi-slerp: the mean direction of any number of experts, as long as they are on average.

Goddard, "Multi-SLERP" (2025), in mergekit: a step in the tangent space at the normalised mean m of the
unit vectors u_t. With sum_t w_t = 1 the step is sum_t w_t (u_t - <u_t, m> m) = 0, because sum_t w_t u_t
points along m; what is left is m.
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.additive import given_weight, sum_of_weights
from taskgrid.merging.bases.sphere import OnSphere
from taskgrid.merging.seam import MergeContext
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="Multi-slerp",
    paper="Goddard, Multi-SLERP, 2025, as in mergekit",
    options={
        "on": Option(
            default="task_vectors",
            choices=("task_vectors", "weights"),
            about="what is averaged: the task vectors, or the experts' weights",
            origin="mergekit where a base is named; weights where none is",
        ),
        "weights": Option(
            default=None,
            kind="numbers",
            least=0,
            about="weight of each task, by name, divided by their sum; null gives 1",
            divided_if={},
            origin="mergekit",
        ),
    },
    scope="tensor",
)

_NO_DIRECTION = 1e-8
"""Means of unit vectors that are shorter point nowhere (mergekit's bound)."""


class MultiSlerp(OnSphere):
    """Adds the direction to the mean on the sphere, times lambda."""

    def coefficients(self, products: torch.Tensor, context: MergeContext) -> torch.Tensor:
        """Return w_t r / (|tau_t| |m|), r the mean length and m the mean of unit vectors.

        The plain mean where m vanishes.
        """
        options, tasks = context.options, context.tasks
        given = torch.tensor([given_weight(options, task) for task in tasks], dtype=torch.float64)
        weights = given / sum_of_weights(options, tasks)
        lengths = products.diagonal().sqrt()
        of_units = torch.where(lengths > 0, weights / lengths, 0)
        mean = float((of_units @ products @ of_units).clamp(min=0).sqrt())
        if mean < _NO_DIRECTION:
            return weights
        return of_units * (weights @ lengths) / mean


MERGER = MultiSlerp()
