"""The best coefficients of tangent models: a convex problem, solved to its global optimum.

Features of a tangent model are f_0 + sum_t c_t J tau_t. Which class wins does not depend on a positive
factor, so their norm may be that at the base, and logits are affine in c:

    z(c) = (f_0 + sum_t c_t J tau_t) W^T / |f_0|

The mean over tasks of the mean cross-entropy of z is convex in c; on a box it has a minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from taskgrid.errors import TrainingError
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import add_direction
from taskgrid.merging.bases.passes import features_of
from taskgrid.merging.learning import Learning, LearningProblem

Floats = NDArray[np.float64]

_FLAT = 1e-6
"""The largest slope that an optimum may have inside the box, in nats per unit of a coefficient."""


@dataclass(frozen=True)
class AffineLogits:
    """Logits of a task's images as a function of T coefficients.

    Attributes:
        start: at zero, ``(n, C)``.
        slopes: by each coefficient, ``(T, n, C)``.
        labels: true classes, ``(n,)``.
    """

    start: Floats
    slopes: Floats
    labels: NDArray[np.int64]

    def cross_entropy(self, at: Floats) -> tuple[float, Floats]:
        """Return the mean cross-entropy in nats, and its gradient ``(T,)``."""
        logs = log_softmax(self.start + np.tensordot(at, self.slopes, axes=1), axis=1)
        rows = np.arange(len(self.labels))
        excess = np.exp(logs)
        excess[rows, self.labels] -= 1
        gradient = np.tensordot(self.slopes, excess, axes=2) / len(rows)
        return -float(logs[rows, self.labels].mean()), gradient


def solved(problem: LearningProblem, most: float, batch_size: int, tally: Tally) -> Learning:
    """Return the best coefficients between 0 and ``most``, and the loss at the base and there.

    Args:
        problem: of tangent models, with labels.
        most: the largest coefficient.
        batch_size: images of a pass.
        tally: is told of images that have been passed.

    Raises:
        TrainingError: if no optimum is found: features are not finite.
    """
    each = [affine_logits(problem, task, batch_size, tally) for task in problem.tasks]
    best = minimum(each, most)
    found = {
        t: torch.tensor(c, dtype=torch.float64) for t, c in zip(problem.tasks, best, strict=True)
    }
    losses = (_mean(each, at)[0] for at in (np.zeros_like(best), best))
    return Learning(found, tuple(enumerate(losses)))


def minimum(each: Sequence[AffineLogits], most: float) -> Floats:
    """Return where the mean of the tasks' cross-entropies is least, ``(T,)``.

    Args:
        each: the tasks' logits, at least one.
        most: the largest coefficient; the least is 0.

    Raises:
        TrainingError: if the slope there is not flat.
    """
    start = np.full(len(each[0].slopes), most / 2)
    # Precise to the last bits: it ends where no step is better.
    found = minimize(
        lambda at: _mean(each, at),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, most)] * len(start),
        options={"ftol": 0.0, "gtol": _FLAT / 100, "maxiter": 1000, "maxcor": 30},
    )
    best: Floats = np.clip(found.x, 0.0, most)
    slope = _mean(each, best)[1]
    # At an end of its range a coefficient may have a slope that leads out of it.
    inside = best - np.clip(best - slope, 0.0, most)
    if not np.abs(inside).max() < _FLAT:
        raise TrainingError(
            f"the search ended where the loss still falls by {np.abs(inside).max():.1e}, so it found no "
            "optimum; see whether the experts diverged"
        )
    return best


def affine_logits(
    problem: LearningProblem, task: str, batch_size: int, tally: Tally
) -> AffineLogits:
    """Return the logits of a task's images along all task vectors, in float64.

    Args:
        problem: of tangent models, with labels.
        task: whose images, and whose head.
        batch_size: images of a pass.
        tally: is told of images that have been passed.
    """
    own = problem.tasks[task]
    assert own.labels is not None, "the card says `labels`"
    weight = own.head.weight.double()
    rows = np.arange(own.count)
    start = features_of(problem, problem.base, task, rows, tally, batch_size)
    length = start.norm(dim=1, keepdim=True)
    slopes = []
    for found in problem.tasks.values():
        moved = add_direction(problem.base, found.vector, 1.0)
        along = features_of(problem, moved, task, rows, tally, batch_size) - start
        slopes.append((along / length @ weight.T).cpu().numpy())
    return AffineLogits(
        (start / length @ weight.T).cpu().numpy(), np.stack(slopes), own.labels.cpu().numpy()
    )


def _mean(each: Sequence[AffineLogits], at: Floats) -> tuple[float, Floats]:
    found = [one.cross_entropy(at) for one in each]
    total: Floats = np.stack([gradient for _, gradient in found]).mean(axis=0)
    return sum(loss for loss, _ in found) / len(found), total
