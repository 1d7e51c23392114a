"""Iso-CTS: Iso-C in which the weakest common directions give way to directions of each task.

Of r singular directions of sum_t tau_t the strongest are kept as common. The others are replaced by as many
directions of each task's matrix without its part in the common ones. All are made orthonormal, and all
get the mean of their singular values:

    theta = theta_0 + lambda * mean(S) P([U_1 ... U_T U_c]) P([V_1 ... V_T V_c])^T

Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces"
(ICML 2025), Iso-CTS.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.spectra import (
    largest_triplets,
    orthogonal_product,
    sum_of,
    whole_direction,
)
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="Iso-CTS",
    paper="Marczak et al., No Task Left Behind: Isotropic Model Merging, ICML 2025, Iso-CTS",
    options={
        "fraction": Option(
            default=0.8,
            least=0,
            most=1,
            about="share of the directions that are common; 1 is Iso-C",
            origin="the paper",
        ),
        "qkv": Option(
            default="fused",
            choices=("fused", "split"),
            about="whether queries, keys and values are one matrix or three",
            origin="the paper's code, on open_clip's towers; FusionBench's towers have three",
        ),
        "others": Option(
            default="mean",
            choices=("mean", "zero"),
            about="what becomes of tensors that are no matrices: averaged, or left at the base",
            origin="the paper's code; merge-and-rebase leaves them",
        ),
    },
    scope="tensor",
)


class IsoCts(Line):
    """Joins common and task-specific directions under one flat spectrum."""

    weighs = True

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction."""
        return whole_direction(
            context, lambda matrices: _joined(matrices, context.options.fraction)
        )


def own_directions(rank: int, tasks: int, fraction: float) -> int:
    """Return how many directions each task has of its own: as many as all, and so many as there are."""
    return min(round((rank - int(rank * fraction)) / tasks), rank // tasks)


def _joined(matrices: Sequence[torch.Tensor], fraction: float) -> torch.Tensor:
    rank, tasks = min(matrices[0].shape), len(matrices)
    own = own_directions(rank, tasks, fraction)
    common = largest_triplets(sum_of(matrices), rank - own * tasks)
    found = [
        largest_triplets(matrix - common.left @ (common.left.T @ matrix), own)
        for matrix in matrices
    ]
    found.append(common)
    mean = torch.cat([each.sizes for each in found]).mean()
    left = torch.cat([each.left for each in found], dim=1)
    right = torch.cat([each.right for each in found])
    return orthogonal_product(left, mean.expand(rank), right)


MERGER = IsoCts()
