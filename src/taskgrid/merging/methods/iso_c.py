"""Iso-C: the sum of the task matrices, its singular values all made equal to their mean.

    theta = theta_0 + lambda * mean(S) U V^T,    sum_t tau_t = U S V^T for each matrix

Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces"
(ICML 2025), Iso-C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.spectra import polar_factor, sum_of, whole_direction
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="Iso-C",
    paper="Marczak et al., No Task Left Behind: Isotropic Model Merging, ICML 2025, Iso-C",
    options={
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


class IsoC(Line):
    """Flattens the spectrum of each sum."""

    weighs = True

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction."""
        return whole_direction(context, _isotropic_sum)


def _isotropic_sum(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    total = sum_of(matrices)
    factor = polar_factor(total)
    # The sum of the singular values is the inner product with the polar factor.
    return factor * ((factor * total).sum() / min(total.shape))


MERGER = IsoC()
