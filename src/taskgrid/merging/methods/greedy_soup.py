"""Greedy soup: average those experts that do not lower what the average gets right.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time" (ICML 2022), recipe 1. Experts there solve one task; here a soup's accuracy is
the mean over the merged tasks, on their validation images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch

from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import Line, learned_sum
from taskgrid.merging.bases.passes import mean_accuracy
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Options

CARD = MergerCard(
    title="Greedy soup",
    paper="Wortsman et al., Model soups, ICML 2022, recipe 1",
    coefficient="none",
    learned=True,
    labels=True,
    scope="element",
)


class GreedySoup(Line):
    """Averages the experts that were kept."""

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the mean of the task vectors that were kept, float64."""
        return learned_sum(context)

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return the images of all tasks, once for each expert and each soup of more than one."""
        images = sum(found.count for found in problem.tasks.values())
        return images * (2 * len(problem.tasks) - 1)

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Return 1/k for the k experts that are kept, and 0; losses are the errors of what was tried."""
        tried: list[Fraction] = []

        def accuracy(members: Sequence[str]) -> Fraction:
            tried.append(mean_accuracy(problem, _shares(members), tally))
            return tried[-1]

        shares = _shares(greedy(list(problem.tasks), accuracy))
        found = {
            task: torch.tensor(shares.get(task, 0.0), dtype=torch.float64) for task in problem.tasks
        }
        return Learning(found, tuple((step, float(1 - one)) for step, one in enumerate(tried)))


MERGER = GreedySoup()


def greedy(tasks: Sequence[str], accuracy: Callable[[Sequence[str]], Fraction]) -> list[str]:
    """Return the experts that recipe 1 keeps, in the order in which they were tried.

    Args:
        tasks: the experts' tasks; of two that are equally accurate the first is tried first.
        accuracy: held-out accuracy of the average of some of them.
    """
    alone = {task: accuracy([task]) for task in tasks}
    first, *others = sorted(tasks, key=alone.__getitem__, reverse=True)
    kept, best = [first], alone[first]
    for task in others:
        found = accuracy([*kept, task])
        if found >= best:
            kept, best = [*kept, task], found
    return kept


def _shares(members: Sequence[str]) -> dict[str, float]:
    return {task: 1 / len(members) for task in sorted(members)}
