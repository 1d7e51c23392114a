"""Function-space ANOVA over subsets of tasks: logits of a merge from those of smaller ones.

For one image and class, the logit of the merge of S is written as sum over U inside S of g_U: a
constant, one effect per task, one per pair, and effects of higher order (Moebius inversion on the
lattice of subsets; "anchored" at the base). The 1 + T + T(T-1)/2 merges of at most two tasks give all
effects up to order two exactly, in closed form:

    f_S = sum_{pairs in S} f_tu - (s - 2) sum_{t in S} f_t + (s - 1)(s - 2)/2 f_0      (s tasks in S)

Effects of order k >= 3 are thought of as independent with variance d^k, d the decay. Then what is left
over after order two, r_S, has the covariance

    k(S, S') = sum_{k >= 3} d^k C(|S n S'|, k),

zero where S has less than three tasks, and further merges predict r by the best linear predictor
(kriging). Its variance says where another merge would tell most. All predictions are one matrix,
free of images and classes, times the logits that were evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from taskgrid.lattice.subsets import numbers_of_sizes

Floats = NDArray[np.float64]

_JITTER = 1e-10
"""Share of the largest variance that keeps the covariance of nearly equal subsets invertible."""


def core_numbers(tasks: int) -> tuple[int, ...]:
    """Return the numbers of the subsets of at most two tasks, the empty one first."""
    return (0, *numbers_of_sizes(tasks, [1, 2]))


def members(numbers: Sequence[int], tasks: int) -> Floats:
    """Return which tasks are in each subset, shape (P, T), as 0 and 1."""
    bits = np.asarray(numbers, dtype=np.int64)[:, None] >> np.arange(tasks)[None, :]
    return (bits & 1).astype(np.float64)


def order_two_weights(numbers: Sequence[int], tasks: int) -> Floats:
    """Return what the core's logits count in the order-two prediction of each subset, (P, core)."""
    inside = members(numbers, tasks)
    core = members(core_numbers(tasks), tasks)
    order = core.sum(axis=1)
    size = inside.sum(axis=1)[:, None]
    contained = inside @ core.T == order[None, :]
    weight = np.select(
        [order[None, :] == 0, order[None, :] == 1],
        [(size - 1) * (size - 2) / 2, 2 - size],
        1.0,
    )
    return np.where(contained, weight, 0.0)


def higher_covariance(shared: NDArray[np.int64], tasks: int, decay: float) -> Floats:
    """Return the covariance of what two subsets leave over after order two.

    Args:
        shared: how many tasks they have in common, any shape.
        tasks: number of tasks.
        decay: variance of an effect of order k is ``decay ** k``.
    """
    table = [
        math.fsum(decay**order * math.comb(common, order) for order in range(3, common + 1))
        for common in range(tasks + 1)
    ]
    covariance: Floats = np.asarray(table, dtype=np.float64)[shared]
    return covariance


@dataclass(frozen=True)
class Surrogate:
    """Predicts the logits of any subset from the core's and those of further subsets.

    Attributes:
        tasks: number of tasks.
        further: numbers of subsets of three and more tasks that are evaluated, too.
        decay: how fast effects fall with their order.
    """

    tasks: int
    further: tuple[int, ...] = ()
    decay: float = 0.1

    @property
    def evaluated(self) -> tuple[int, ...]:
        """The subsets whose logits are needed, in the order of the weights' columns."""
        return (*core_numbers(self.tasks), *self.further)

    def weights(self, numbers: Sequence[int]) -> Floats:
        """Return the prediction as a matrix, (P, evaluated); exact for what is evaluated."""
        core = order_two_weights(numbers, self.tasks)
        if not self.further:
            return core
        gain = self._gain(self._covariance(numbers))
        left_over = order_two_weights(self.further, self.tasks)
        return np.concatenate([core - gain @ left_over, gain], axis=1)

    def variance(self, numbers: Sequence[int]) -> Floats:
        """Return how uncertain predictions are, (P,), in units of an effect of order zero."""
        size = members(numbers, self.tasks).sum(axis=1).astype(np.int64)
        prior = higher_covariance(size, self.tasks, self.decay)
        if not self.further:
            return prior
        covariance = self._covariance(numbers)
        explained = (self._gain(covariance) * covariance).sum(axis=1)
        left: Floats = np.maximum(prior - explained, 0.0)
        return left

    def most_uncertain(
        self, numbers: Sequence[int], count: int, importance: Floats | None = None
    ) -> tuple[int, ...]:
        """Return the subsets that are best evaluated next, one after the other.

        Each is the one with the largest importance times standard deviation, given those before.

        Args:
            numbers: subsets to choose among.
            count: how many.
            importance: what a standard deviation of each costs, (P,); by default all the same.
        """
        size = members(numbers, self.tasks).sum(axis=1).astype(np.int64)
        prior = higher_covariance(size, self.tasks, self.decay)
        variance = self.variance(numbers)
        cost = np.ones(len(numbers)) if importance is None else importance
        # Cholesky by columns: what each chosen subset explains of all the others.
        explained: list[Floats] = []
        known = self._factors(numbers)
        chosen: list[int] = []
        for _ in range(min(count, len(numbers))):
            at = int(np.argmax(cost * np.sqrt(variance)))
            if variance[at] <= _JITTER * max(float(prior.max()), 1e-300):
                break
            column = self._column(numbers, at) - known @ known[at]
            for earlier in explained:
                column = column - earlier * earlier[at]
            column = column / math.sqrt(variance[at])
            explained.append(column)
            variance = np.maximum(variance - column**2, 0.0)
            variance[at] = 0.0
            chosen.append(numbers[at])
        return tuple(chosen)

    def _column(self, numbers: Sequence[int], at: int) -> Floats:
        inside = members(numbers, self.tasks)
        shared = (inside @ inside[at]).astype(np.int64)
        return higher_covariance(shared, self.tasks, self.decay)

    def _factors(self, numbers: Sequence[int]) -> Floats:
        """Return the matrix whose outer product is what the evaluated subsets explain."""
        if not self.further:
            return np.zeros((len(numbers), 0))
        factors: Floats = solve_triangular(self._lower, self._covariance(numbers).T, lower=True).T
        return factors

    def _covariance(self, numbers: Sequence[int]) -> Floats:
        inside, known = members(numbers, self.tasks), members(self.further, self.tasks)
        return higher_covariance((inside @ known.T).astype(np.int64), self.tasks, self.decay)

    def _gain(self, covariance: Floats) -> Floats:
        gain: Floats = cho_solve((self._lower, True), covariance.T).T
        return gain

    @cached_property
    def _lower(self) -> Floats:
        among = self._covariance(self.further)
        jitter = _JITTER * float(among.diagonal().max())
        lower: Floats = cholesky(among + jitter * np.eye(len(among)), lower=True)
        return lower
