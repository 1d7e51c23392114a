"""Consensus: the entries of the merged vector that matter to several tasks.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression" (ICML 2024),
section 4.2: theta = theta_0 + lambda * 1[sum_t m_t >= k] * tau_MTL, m_t the TALL masks.
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.inner import merged_vector, scope_of
from taskgrid.merging.bases.masks import matters
from taskgrid.merging.bases.thresholds import LearnedThresholds, threshold
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard, Scope
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="Consensus merging",
    paper="Wang et al., Localizing Task Information, ICML 2024, section 4.2",
    options={
        "agree": Option(
            default=2,
            least=0,
            counts_tasks=True,
            about="to how many tasks at least an entry must matter",
            origin="the paper",
        ),
        "mask_lambda": Option(
            default=0.4,
            least=0,
            words=("auto",),
            about="how much larger than its distance to the merged entry a task's own entry must be; `auto` "
            "chooses per task on validation, of 0.2 ... 0.6",
            origin="the middle of what the paper chooses from",
        ),
        "of": Option(
            default="sum",
            choices=("sum", "ties"),
            about="what is masked: the sum of the task vectors, or their merge by TIES",
            origin="the paper shows both",
        ),
        "density": Option(
            default=0.2,
            above=0,
            most=1,
            about="with `ties`: share that trimming keeps",
            origin="TIES",
        ),
        "combine": Option(
            default="sum",
            choices=("sum", "mean", "max"),
            about="with `ties`: what becomes of the entries of the elected sign",
            origin="the paper's code",
        ),
    },
    learned_if={"mask_lambda": "auto"},
    labels=True,
)


class Consensus(Line, LearnedThresholds):
    """Adds what is left of the merged vector, times lambda."""

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once."""
        return scope_of(options)

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the merged vector where enough tasks agree, float64."""
        options, direction = context.options, merged_vector(context)
        for name, merged in direction.items():
            votes = torch.zeros(merged.shape, dtype=torch.int16, device=merged.device)
            for task, vector in context.vectors.items():
                votes += matters(vector[name], merged, threshold(context, task, name))
            merged[votes < options.agree] = 0
        return direction


MERGER = Consensus()
