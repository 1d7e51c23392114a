"""What methods share that keep a random part of every vector: draws, rescaling, the merge of what is left."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch

from taskgrid.merging.bases.additive import Line, weighted_sum
from taskgrid.merging.bases.algebra import Factored
from taskgrid.merging.bases.election import Voter, elect
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import Scope
from taskgrid.plugins.options import Options
from taskgrid.provenance import derive_seed

Rescale = Literal["inverse", "l1", "none"]


class Sampled(Factored, Line):
    """A method that says how likely an entry is kept; its options are ``combine`` and ``rescale``.

    What is left of the vectors is added up, or merged as TIES does (``election``) without trimming.
    """

    @abstractmethod
    def chances(self, entries: torch.Tensor, options: Options) -> torch.Tensor:
        """Return the probability that an entry is kept, more than 0, float64.

        Args:
            entries: a tensor of a task vector.
            options: the method's options.

        Returns:
            One for all, ``()``, or the shape of ``entries``.
        """

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once: the majority of an election is the whole model's."""
        return "model" if options.combine == "ties" else "tensor"

    def lift(self, alone: MergeContext) -> Prepared:
        """Return what is kept of a task, rescaled, float64."""
        ((task, vector),) = alone.vectors.items()
        options = alone.options
        return {
            name: sample(
                entries,
                self.chances(entries, options),
                derive_seed("keep", alone.seed, task, name),
                options.rescale,
            )
            for name, entries in vector.items()
        }

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        """Return the direction."""
        if context.options.combine == "sum":
            return weighted_sum([(1.0, kept) for kept in factors.values()])
        return elect([Voter(kept, _everything(kept)) for kept in factors.values()])


def sample(
    entries: torch.Tensor, chances: torch.Tensor, seed: int, rescale: Rescale
) -> torch.Tensor:
    """Return a tensor in float64 with a random part of its entries, the others zero.

    Args:
        entries: any shape.
        chances: the probability that an entry is kept, ``()`` or the shape of ``entries``.
        seed: where the draws come from; they are made on the CPU, so that no device has its own.
        rescale: divide what is kept by its probability; multiply it by the ratio of the tensor's sums of
            magnitudes before and after; or leave it.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(entries.shape, generator=generator, dtype=torch.float64)
    kept = torch.where(drawn.to(entries.device) < chances, entries, 0).double()
    if rescale == "inverse":
        return kept / chances
    if rescale == "l1":
        before, after = entries.double().abs().sum(), kept.abs().sum()
        return kept * torch.where(after > 0, before / after, 1.0)
    return kept


def _everything(vector: Prepared) -> Prepared:
    """Return thresholds that trim nothing."""
    return {name: entries.new_zeros(()) for name, entries in vector.items()}
