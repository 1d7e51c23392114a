"""Core Space: LoRA experts seen from the joint spaces of their factors, and merged there.

    tau_t = B_t A_t,    [B_1 ... B_T] = U_B S_B W_B,    [A_1; ...; A_T] = W_A S_A V_A

    theta = theta_0 + lambda * U_B merge(M_1, ..., M_T) V_A,    M_t = U_B^T B_t A_t V_A^T

for each matrix, with B_t^T B_t = A_t A_t^T. Panariello et al., "Accurate and Efficient Low-Rank Model
Merging in Core Space" (NeurIPS 2025), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taskgrid.merging.bases.lowrank import LowRank, LowRankMerger, Space
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="Core Space",
    paper="Panariello et al., Accurate and Efficient Low-Rank Model Merging in Core Space, NeurIPS 2025",
    options={
        "of": Option(
            default="ties",
            choices=("ties", "sum"),
            about="what merges in that space: TIES, or the sum, which is that of the task vectors",
            origin="the paper shows both",
        ),
        "density": Option(
            default=0.2,
            above=0,
            most=1,
            about="with `ties`: share that trimming keeps",
            origin="TIES; the paper's code chooses on validation",
        ),
        "trim": Option(
            default="tensor",
            choices=("tensor", "global"),
            about="with `ties`: whether that share, and the sign of draws, are of all matrices or of each",
            origin="the paper's code; merge-and-rebase has `global`",
        ),
        "combine": Option(
            default="mean",
            choices=("mean", "sum", "max"),
            about="with `ties`: what becomes of the entries of the elected sign",
            origin="TIES",
        ),
        "qkv": Option(
            default="fused",
            choices=("fused", "split"),
            about="whether queries, keys and values are one matrix or three",
            origin="open_clip's towers; the paper's have three",
        ),
    },
    factors=True,
)


class CoreSpace(LowRankMerger):
    """Takes the singular vectors of all factors, side by side, as the bases."""

    def space(self, changes: Sequence[LowRank], options: Options) -> Space:
        """Return both bases and the cores M_t."""
        factors = [
            (each.left * each.sizes.sqrt(), each.sizes.sqrt()[:, None] * each.right)
            for each in changes
        ]
        left = torch.linalg.svd(torch.cat([b for b, _ in factors], dim=1), full_matrices=False).U
        right = torch.linalg.svd(torch.cat([a for _, a in factors]), full_matrices=False).Vh
        return Space(left, [(left.T @ b) @ (a @ right.T) for b, a in factors], right)


MERGER = CoreSpace()
