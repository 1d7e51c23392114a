"""Diagonal Fisher information of the base: how much each weight matters to what theta_0 predicts.

Daheim et al., "Model Merging by Uncertainty-Based Gradient Matching" (ICLR 2024, arXiv 2310.12808),
section 3.2, take H_0 of theta_0 on the data that it was trained on. Those of a CLIP are images with captions
that nobody has; here images of control tasks stand for them (of several tasks, the sum), each under its
own zero-shot head.
"""

from __future__ import annotations

from taskgrid.plugins.cards import StatisticCard
from taskgrid.plugins.options import Option
from taskgrid.statistics.fisher import Fisher

CARD = StatisticCard(
    title="Diagonal Fisher information of the base: sums over images of squared gradients",
    paper="Daheim et al., Model Merging by Uncertainty-Based Gradient Matching, ICLR 2024 "
    "(arXiv 2310.12808), section 3.2",
    options={
        "of": Option(
            default="control",
            choices=("control", "trained", "all"),
            about="tasks whose images stand for those that the base was trained on: those without experts, "
            "those with experts, or all",
        ),
        "images": Option(
            default=256,
            kind="integer",
            least=0,
            about="images of each of these tasks; 0 takes all",
        ),
        "split": Option(
            default="train",
            choices=("train", "val", "test"),
            about="the split they come from; `test` makes what is merged with it transductive",
        ),
        "labels": Option(
            default="sampled",
            choices=("sampled", "exact", "empirical"),
            about="y: one draw from the predictions, all classes by their probability, or the true class",
        ),
    },
    per="base",
)

STATISTIC = Fisher()
