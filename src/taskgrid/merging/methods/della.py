"""DELLA: drop entries at random, small ones more often, rescale the others, merge what is left.

Deep et al., "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling"
(2024), section 3 (MagPrune).
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.sampling import Sampled
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options, Rule

CARD = MergerCard(
    title="DELLA",
    paper="Deep et al., DELLA-Merging, 2024, section 3",
    options={
        "density": Option(
            default=0.3,
            above=0,
            most=1,
            about="mean probability that an entry is kept",
        ),
        "epsilon": Option(
            default=0.15,
            least=0,
            below=0.5,
            about="how far that probability lies below and above the mean for a row's ends",
            origin="mergekit; the paper's epsilon is the whole range, twice this",
        ),
        "combine": Option(
            default="sum",
            choices=("sum", "ties"),
            about="what becomes of what is left: a sum, or signs elected as by TIES and the mean of those",
        ),
        "rescale": Option(
            default="inverse",
            choices=("inverse", "l1", "none"),
            about="divide by the probability to be kept, restore each tensor's sum of magnitudes, or neither",
            origin="the paper; mergekit restores sums",
        ),
    },
    rules=(
        Rule(
            plus=("density",),
            minus=("epsilon",),
            above=0,
            about="the probability with which a row's smallest entry is kept",
        ),
        Rule(
            plus=("density", "epsilon"),
            most=1,
            about="the probability with which a row's largest entry is kept",
        ),
    ),
    stochastic=True,
)


class Della(Sampled):
    """Keeps an entry with a probability that grows with its rank among those of its row."""

    def chances(self, entries: torch.Tensor, options: Options) -> torch.Tensor:
        """Return density - epsilon for a row's smallest entry to density + epsilon for its largest."""
        density: float = options.density
        epsilon: float = options.epsilon
        magnitudes = entries.abs()
        rows = magnitudes.flatten(1) if magnitudes.dim() > 1 else magnitudes.reshape(1, -1)
        return (density - epsilon + 2 * epsilon * _ranks(rows)).view(entries.shape)


def _ranks(rows: torch.Tensor) -> torch.Tensor:
    """Return ranks within each row, from 0 to 1 in float64; equal entries share their mean rank."""
    ordered, rows = rows.sort(dim=1).values, rows.contiguous()
    below = torch.searchsorted(ordered, rows)
    up_to = torch.searchsorted(ordered, rows, right=True)
    last = rows.shape[1] - 1
    if last < 1:
        return torch.full(rows.shape, 0.5, dtype=torch.float64, device=rows.device)
    return (below + up_to - 1).double() / (2 * last)


MERGER = Della()
