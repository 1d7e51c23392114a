"""Accuracy on the labelled images that a method learns from."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import torch

from taskgrid.machine.meter import Tally
from taskgrid.merging.learning import LearningProblem


def accuracy_of(
    problem: LearningProblem,
    state: Mapping[str, torch.Tensor],
    task: str,
    tally: Tally,
    batch_size: int = 128,
) -> Fraction:
    """Return the share of a task's images that a model gets right, exactly.

    Args:
        problem: network, heads, images and their labels.
        state: the model.
        task: whose images, and whose head.
        tally: is told of images that have been passed.
        batch_size: images of a pass; being forward only, it needs little memory.
    """
    found, right = problem.tasks[task], 0
    assert found.labels is not None, "the card says `labels`"
    for start in range(0, found.count, batch_size):
        rows = np.arange(start, min(start + batch_size, found.count))
        with torch.no_grad():
            logits = problem.logits(state, task, rows)
        labels = found.labels[start : start + batch_size]
        right += int((logits.argmax(dim=1) == labels).sum())
        tally.advance(len(rows))
    return Fraction(right, found.count)
