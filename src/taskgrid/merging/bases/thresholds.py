"""Thresholds of TALL masks: given for all tasks, or learned for each from validation labels.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression" (ICML 2024), section 4
and appendix A: of 0.2, 0.3, ... 0.6 each task takes the lambda_t with which its masked model gets most of
its validation images right.
"""

from __future__ import annotations

import torch

from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import add_direction
from taskgrid.merging.bases.inner import merged_vector
from taskgrid.merging.bases.masks import matters
from taskgrid.merging.bases.passes import accuracy_of
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext
from taskgrid.plugins.options import Options

GRID = (0.2, 0.3, 0.4, 0.5, 0.6)


def threshold(context: MergeContext, task: str, name: str) -> float:
    """Return lambda_t of a task: the option ``mask_lambda``, or what was learned where it is ``auto``."""
    given: float | str = context.options.mask_lambda
    return context.learned_coefficient(task, name) if isinstance(given, str) else given


class LearnedThresholds:
    """What a method learns whose ``mask_lambda`` is ``auto``."""

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return the images of all tasks, once for each threshold."""
        return len(GRID) * sum(found.count for found in problem.tasks.values())

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Return each task's threshold, the smallest of the best; losses are the errors of what was tried."""
        vectors = {task: found.vector for task, found in problem.tasks.items()}
        merged = merged_vector(MergeContext(problem.base, vectors, options))
        chosen: dict[str, torch.Tensor] = {}
        errors: list[float] = []
        for task, vector in vectors.items():
            right = []
            for mask_lambda in GRID:
                direction = {
                    name: torch.where(matters(vector[name], tensor, mask_lambda), tensor, 0)
                    for name, tensor in merged.items()
                }
                state = add_direction(problem.base, direction, 1.0)
                right.append(accuracy_of(problem, state, task, tally))
            errors += [float(1 - one) for one in right]
            best = GRID[right.index(max(right))]
            chosen[task] = torch.tensor(best, dtype=torch.float64)
        return Learning(chosen, tuple(enumerate(errors)))
