"""aTLAS: coefficients for every block of every task vector, learned from labels.

    theta(c) = theta_0 + lambda * sum_t c_t tau_t,
    c = argmin at lambda = 1 of sum_t mean_(x, y) -log softmax(h_t(f(x; theta(c))))_y

A block is a parameter tensor. Zhang et al., "Knowledge Composition using Task Vectors with Learned
Anisotropic Scaling" (NeurIPS 2024), sections 3 and 5.2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import Line, learned_sum
from taskgrid.merging.bases.descent import Loss, Rows, batches, begun, descend
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed

CARD = MergerCard(
    title="aTLAS",
    paper="Zhang et al., aTLAS, NeurIPS 2024, section 5.2",
    options={
        "shots": Option(
            default=None,
            kind="integer",
            least=1,
            about="labelled validation images of each class, drawn once; null takes all there are",
            origin="the paper's task addition",
        ),
        "steps": Option(
            default=500,
            kind="integer",
            least=0,
            about="steps of AdamW; each passes a batch of every task",
            origin="about the paper's 20 passes over its smallest task",
        ),
        "lr": Option(
            default=1e-3, above=0, about="learning rate of AdamW", origin="the paper's code"
        ),
        "batch_size": Option(
            default=16,
            kind="integer",
            least=1,
            about="images of each task in a step",
            origin="the paper's 128 for eight tasks",
        ),
        "weight_decay": Option(
            default=0.1,
            least=0,
            about="how much AdamW draws coefficients to zero",
            origin="the paper's code",
        ),
    },
    learned=True,
    labels=True,
    scope="element",
)

_LONGEST = 1.0
"""Norm that the gradient of all coefficients is cut to, as in the paper's code."""


class Atlas(Line):
    """Adds the task vectors, times what was learned and times lambda."""

    weighs = True

    def prepare(self, context: MergeContext) -> Prepared:
        """Return sum_t c_t tau_t in float64."""
        return learned_sum(context)

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return steps times tasks times images of a batch."""
        return int(options.steps * options.batch_size * len(problem.tasks))

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Minimise the cross-entropy with AdamW, beginning at the base."""
        free = begun(problem, 0.0, per_tensor=True)
        drawn = {
            task: batches(
                shots(
                    _labels(found).cpu().numpy(), options.shots, derive_seed("shots", seed, task)
                ),
                options.batch_size,
                derive_seed("atlas", seed, task),
            )
            for task, found in problem.tasks.items()
        }
        optimiser = torch.optim.AdamW(
            free.values(), lr=options.lr, weight_decay=options.weight_decay
        )
        loss = cross_entropy_of(problem)
        history = descend(
            problem, optimiser, lambda: free, loss, drawn, options.steps, tally, _LONGEST
        )
        return Learning({task: one.detach().cpu() for task, one in free.items()}, history)


MERGER = Atlas()


def cross_entropy_of(problem: LearningProblem) -> Loss:
    """Return the mean over images of what the true class lacks, in nats."""

    def loss(task: str, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        labels = _labels(problem.tasks[task])
        return functional.cross_entropy(logits, labels[torch.from_numpy(rows).to(labels.device)])

    return loss


def shots(labels: Rows, count: int | None, seed: int) -> Rows:
    """Return the images that are learned from, in order: some of each class, or all.

    Args:
        labels: true classes of all images, ``(n,)``.
        count: how many of each class; of a class that has fewer, all. None takes all images.
        seed: what they are drawn from.
    """
    if count is None:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    kept = [order[labels[order] == each][:count] for each in np.unique(labels)]
    return np.sort(np.concatenate(kept))


def _labels(task: LearningTask) -> torch.Tensor:
    assert task.labels is not None, "the card says `labels`"
    return task.labels
