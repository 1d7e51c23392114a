"""Karcher mean: the point of the sphere whose squared arcs to all experts are least in sum.

Karcher, "Riemannian Center of Mass and Mollifier Smoothing" (CPAM 1977); the descent is
m <- exp_m(sum_t w_t log_m(u_t)), and the mean is as long as the points are on average.
"""

from __future__ import annotations

import math

import torch

from taskgrid.merging.bases.additive import given_weight
from taskgrid.merging.bases.sphere import OnSphere, cosines
from taskgrid.merging.seam import MergeContext
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="Karcher mean",
    paper="Karcher, Riemannian Center of Mass and Mollifier Smoothing, CPAM 1977",
    options={
        "on": Option(
            default="task_vectors",
            choices=("task_vectors", "weights"),
            about="what is averaged: the task vectors, or the experts' weights",
            origin="mergekit takes weights",
        ),
        "weights": Option(
            default=None,
            kind="numbers",
            above=0,
            about="weight of each task, by name, divided by their sum; null gives 1",
        ),
        "max_iter": Option(default=10, least=0, about="most steps", origin="mergekit"),
        "tol": Option(
            default=1e-5,
            above=0,
            about="steps, angles and lengths below it are none",
            origin="mergekit",
        ),
    },
    scope="tensor",
)


class Karcher(OnSphere):
    """Adds the direction to the mean on the sphere, times lambda."""

    def coefficients(self, products: torch.Tensor, context: MergeContext) -> torch.Tensor:
        """Return those of the mean: points that are too short have a length, but no direction."""
        given = [given_weight(context.options, task) for task in context.tasks]
        weights = torch.tensor(given, dtype=torch.float64) / sum(given)
        lengths, tol = products.diagonal().sqrt(), context.options.tol
        there = lengths > tol
        found = torch.zeros_like(weights)
        if there.any():
            units = cosines(products)[there][:, there]
            shares = weights[there] / weights[there].sum()
            mean = _mean(units, shares, context.options.max_iter, tol)
            found[there] = mean * (weights @ lengths) / lengths[there]
        return found


def _mean(units: torch.Tensor, shares: torch.Tensor, steps: int, tol: float) -> torch.Tensor:
    """Return the Karcher mean of unit vectors as coefficients of them.

    Args:
        units: their cosines ``(T, T)``.
        shares: their weights ``(T,)``, which add up to 1.
        steps: at most so many.
        tol: see the card.
    """
    mean = shares.clone()
    if _length(mean, units) < tol:
        # Balanced on both sides of the sphere: begin at one of them.
        mean = torch.zeros_like(shares)
        mean[0] = 1
    mean = mean / _length(mean, units)
    for _ in range(steps):
        dots = (units @ mean).clamp(-1, 1)
        angles = dots.arccos()
        # Neither the mean itself nor its antipode says where to go.
        moves = torch.where(angles.sin() < tol, 0, shares * angles / angles.sin())
        tangent = moves - (moves @ dots) * mean
        step = _length(tangent, units)
        if step < tol:
            break
        mean = math.cos(step) * mean + math.sin(step) / step * tangent
        mean = mean / _length(mean, units)
    return mean


def _length(coefficients: torch.Tensor, units: torch.Tensor) -> float:
    return math.sqrt(max(float(coefficients @ units @ coefficients), 0.0))


MERGER = Karcher()
