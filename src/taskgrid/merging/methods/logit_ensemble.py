"""Ensemble of the experts: the mean of what they say, and no merge of weights.

What merged models are compared with: as many forward passes as experts. Wortsman et al., "Model soups"
(ICML 2022), section 2, call it the ensemble and average logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.plugins.storage import Storage

CARD = MergerCard(
    title="Ensemble of the experts",
    paper="Wortsman et al., Model soups, ICML 2022, section 2",
    options={
        "of": Option(
            default="logits",
            choices=("logits", "probabilities"),
            about="what is averaged; of probabilities the logarithm of the mean is given",
            origin="the paper",
        ),
    },
    gives="logits",
    coefficient="none",
    storage=Storage(task=32),
)


class LogitEnsemble:
    """Averages the experts."""

    def combine(self, logits: Mapping[str, torch.Tensor], options: Options) -> torch.Tensor:
        """Return the mean ``(n, C)``, computed in float64 and rounded once."""
        said = [one.double() for one in logits.values()]
        if options.of == "logits":
            mean = torch.stack(said).mean(0)
        else:
            spoken = torch.stack([one.log_softmax(-1) for one in said])
            mean = spoken.logsumexp(0) - math.log(len(said))
        return mean.to(next(iter(logits.values())).dtype)


MERGER = LogitEnsemble()
