"""DARE: drop entries of each task vector at random, rescale the others, merge what is left.

Yu et al., "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch"
(ICML 2024), section 3.2: m ~ Bernoulli(1 - p), tau^ = m * tau / (1 - p).
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.sampling import Sampled
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="DARE",
    paper="Yu et al., Language Models are Super Mario, ICML 2024, section 3.2",
    options={
        "drop": Option(
            default=0.9,
            least=0,
            below=1,
            about="probability that an entry is dropped",
            origin="the paper's p; FusionBench takes 0.5",
        ),
        "combine": Option(
            default="sum",
            choices=("sum", "ties"),
            about="what becomes of what is left: a sum, or signs elected as by TIES and the mean of those",
            origin="the paper shows both",
        ),
        "rescale": Option(
            default="inverse",
            choices=("inverse", "l1", "none"),
            about="divide by the probability to be kept, restore each tensor's sum of magnitudes, or neither",
            origin="the paper; mergekit restores sums",
        ),
    },
    stochastic=True,
)


class Dare(Sampled):
    """Keeps every entry with the same probability."""

    def chances(self, entries: torch.Tensor, options: Options) -> torch.Tensor:
        """Return 1 - p."""
        return torch.tensor(1 - options.drop, dtype=torch.float64, device=entries.device)


MERGER = Dare()
