"""Passes of the images that a method learns from: their features, and how many a model gets right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import add_direction, weighted_sum
from taskgrid.merging.learning import LearningProblem

_BATCH = 128
"""Images of a pass; being forward only, it needs little memory."""


def in_batches(
    rows: NDArray[np.int64], batch_size: int, tally: Tally
) -> Iterator[NDArray[np.int64]]:
    """Yield some images after the others; those of a batch have passed when the next one is asked for."""
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        yield some
        tally.advance(len(some))


def features_of(
    problem: LearningProblem,
    state: Mapping[str, torch.Tensor],
    task: str,
    rows: NDArray[np.int64],
    tally: Tally,
    batch_size: int = _BATCH,
) -> torch.Tensor:
    """Return the features ``(n, d)`` of some of a task's images, float64.

    Args:
        problem: the network, and the images.
        state: the model.
        task: whose images.
        rows: which of them, ``(n,)``.
        tally: is told of images that have been passed.
        batch_size: images of a pass.
    """
    inputs, found = problem.tasks[task].inputs, []
    for some in in_batches(rows, batch_size, tally):
        with torch.no_grad():
            found.append(problem.features(state, inputs(some)).double())
    return torch.cat(found)


def accuracy_of(
    problem: LearningProblem,
    state: Mapping[str, torch.Tensor],
    task: str,
    tally: Tally,
    batch_size: int = _BATCH,
) -> Fraction:
    """Return the share of a task's images that a model gets right, exactly.

    Args:
        problem: network, heads, images and their labels.
        state: the model.
        task: whose images, and whose head.
        tally: is told of images that have been passed.
        batch_size: images of a pass.
    """
    found, right = problem.tasks[task], 0
    assert found.labels is not None, "the card says `labels`"
    for some in in_batches(np.arange(found.count), batch_size, tally):
        with torch.no_grad():
            guess = problem.logits(state, task, some).argmax(dim=1)
        right += int((guess == found.labels[some[0] : some[-1] + 1]).sum())
    return Fraction(right, found.count)


def mean_accuracy(
    problem: LearningProblem,
    coefficients: Mapping[str, float],
    tally: Tally,
    batch_size: int = _BATCH,
) -> Fraction:
    """Return the mean over all tasks of the accuracy of theta_0 + sum_t c_t tau_t, exactly.

    Args:
        problem: base, vectors, network, heads, images and their labels.
        coefficients: task -> c_t; of tasks that are not named it is zero.
        tally: is told of images that have been passed.
        batch_size: images of a pass.
    """
    terms = [(c, problem.tasks[task].vector) for task, c in coefficients.items()]
    state = add_direction(problem.base, weighted_sum(terms), 1.0)
    each = [accuracy_of(problem, state, task, tally, batch_size) for task in problem.tasks]
    return sum(each, Fraction()) / len(each)
