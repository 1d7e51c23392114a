"""Model Breadcrumbs: mask the largest and the smallest entries of each task vector, add what is left.

Davari and Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks" (ECCV 2024),
section 3.
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.algebra import Fold
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options, Rule

CARD = MergerCard(
    title="Model Breadcrumbs",
    paper="Davari and Belilovsky, Model Breadcrumbs, ECCV 2024, section 3",
    options={
        "keep": Option(
            default=0.2,
            above=0,
            most=1,
            about="share of the entries to keep, the largest of those that are looked at",
            origin="the paper's code",
        ),
        "remove": Option(
            default=0.1,
            least=0,
            below=1,
            about="share of the entries that is masked for being the largest",
            origin="the paper's code; mergekit takes 0.01",
        ),
        "order": Option(
            default="remove_first",
            choices=("remove_first", "keep_first"),
            about="which comes first; with keep_first the removed ones are among the kept",
            origin="the paper's code",
        ),
        "scope": Option(
            default="row",
            choices=("row", "tensor"),
            about="shares of each row (last axis), or of the tensor, where `keep` is what is left in the end",
            origin="the paper's code; mergekit takes tensors",
        ),
    },
    rules=(
        Rule(
            plus=("keep", "remove"),
            most=1,
            when={"scope": "row", "order": "remove_first"},
            about="the share of the entries that these two take",
        ),
        Rule(
            plus=("keep",),
            minus=("remove",),
            above=0,
            when={"scope": "row", "order": "keep_first"},
            about="the share of the entries that is left",
        ),
    ),
    scope="tensor",
)


class Breadcrumbs(Fold, Line):
    """Adds the sum of the masked vectors, times lambda."""

    def lift(self, alone: MergeContext) -> Prepared:
        """Return the masked vector."""
        (vector,) = alone.vectors.values()
        return {name: _middle(entries, alone.options) for name, entries in vector.items()}

    def begin(self, lifted: Prepared) -> Prepared:
        """Return the first masked vector in float64."""
        return {name: kept.to(torch.float64, copy=True) for name, kept in lifted.items()}

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        """Return the sum with one more."""
        if reuse:
            return {name: total[name].add_(kept) for name, kept in lifted.items()}
        return {name: total[name] + kept for name, kept in lifted.items()}


def _middle(entries: torch.Tensor, options: Options) -> torch.Tensor:
    if options.scope == "row" and entries.dim() == 0:
        return entries
    rows = entries if options.scope == "row" else entries.reshape(-1)
    first, last = _kept_ranks(rows.shape[-1], options)
    # Stable: of equal magnitudes the first counts as the largest, on every device.
    order = rows.abs().argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, order[..., first:last], True)
    return torch.where(mask, rows, 0).view_as(entries)


def _kept_ranks(count: int, options: Options) -> tuple[int, int]:
    """Return the first rank that is kept, the largest entry having 0, and the first that is not."""
    removed, kept = int(count * options.remove), int(count * options.keep)
    if options.scope == "tensor":
        removed = min(removed, count - kept)
        return removed, removed + kept
    return removed, removed + kept if options.order == "remove_first" else kept


MERGER = Breadcrumbs()
