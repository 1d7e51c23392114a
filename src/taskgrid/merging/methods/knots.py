"""KnOTS: LoRA experts turned into one basis, and merged there.

    [tau_1 ... tau_T] = U S [V_1 ... V_T],    theta = theta_0 + lambda * U S merge(V_1, ..., V_T)

for each matrix. Stoica et al., "Model Merging with SVD to Tie the Knots" (ICLR 2025), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from taskgrid.merging.bases.lowrank import LowRank, LowRankMerger, Space
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="KnOTS",
    paper="Stoica et al., Model Merging with SVD to Tie the Knots, ICLR 2025, section 4",
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
            default="global",
            choices=("global", "tensor"),
            about="with `ties`: whether that share, and the sign of draws, are of all matrices or of each",
            origin="the paper's code; that of Core Space has `tensor`",
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
        "scaled": Option(
            default=False,
            about="with `ties`: whether what merges is S V_t instead of V_t",
            origin="the paper's formula; its code scales",
        ),
    },
    factors=True,
)


class Knots(LowRankMerger):
    """Takes the left singular vectors of all changes, side by side, as the basis."""

    def space(self, changes: Sequence[LowRank], options: Options) -> Space:
        """Return the basis and V_t, or S V_t.

        With tau_t = L_t D_t R_t and [L_1 D_1 ... L_T D_T] = U S [W_1 ... W_T], V_t is W_t R_t: the rows of
        R_t are orthonormal. This takes T r columns to decompose, not T n.
        """
        left, sizes, right = torch.linalg.svd(
            torch.cat([each.left * each.sizes for each in changes], dim=1), full_matrices=False
        )
        # Where changes share directions, what is left of them is rounding.
        noise = torch.stack([each.noise for each in changes]).norm()
        count = int((sizes > noise).sum())
        left, sizes, right = left[:, :count], sizes[:count], right[:count]
        blocks = right.split([len(each.sizes) for each in changes], dim=1)
        entries = [block @ each.right for block, each in zip(blocks, changes, strict=True)]
        if options.scaled:
            return Space(left, [sizes[:, None] * each for each in entries])
        return Space(left * sizes, entries)


MERGER = Knots()
