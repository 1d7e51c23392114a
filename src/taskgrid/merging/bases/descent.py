"""Coefficients learned by gradient descent, through the weights that they make.

    theta(c) = theta_0 + sum_t c_t tau_t,    c minimises sum_t mean_x loss_t(h_t(f(x; theta(c))))

A c_t is one number for the model, or one for each of its floating tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.errors import TrainingError
from taskgrid.machine.meter import Tally
from taskgrid.merging.learning import LearningProblem
from taskgrid.merging.seam import learned_names
from taskgrid.store.weights import State

Rows: TypeAlias = NDArray[np.int64]
Coefficients: TypeAlias = Mapping[str, torch.Tensor]
"""Task -> ``()`` or ``(tensors,)``, float64."""

Loss: TypeAlias = Callable[[str, torch.Tensor, Rows], torch.Tensor]
"""The mean loss, ``()``, of logits ``(B, C)`` of a task's images: those of some rows."""


def begun(problem: LearningProblem, start: float, per_tensor: bool) -> dict[str, torch.Tensor]:
    """Return coefficients that are all the same and can be learned, on the problem's device."""
    device = next(iter(problem.base.values())).device
    shape = (len(learned_names(problem.base)),) if per_tensor else ()
    at = torch.full(shape, start, dtype=torch.float64, device=device)
    return {task: at.clone().requires_grad_() for task in problem.tasks}


def descend(
    problem: LearningProblem,
    optimiser: torch.optim.Optimizer,
    coefficients: Callable[[], Coefficients],
    loss: Loss,
    drawn: Mapping[str, Iterator[Rows]],
    steps: int,
    tally: Tally,
    longest: float | None = None,
) -> tuple[tuple[int, float], ...]:
    """Take some steps, and return each step's number and the loss before it.

    Args:
        problem: base, vectors, heads, images and the network.
        optimiser: moves the leaves behind the coefficients.
        coefficients: gives them as the leaves are.
        loss: what is minimised.
        drawn: task -> batches of its images.
        steps: how many steps; each passes a batch of every task.
        tally: is told of images that have been passed.
        longest: the norm that the gradient of all leaves is cut to; None leaves it as it is.

    Raises:
        TrainingError: if the loss is not finite.
    """
    leaves = [leaf for group in optimiser.param_groups for leaf in group["params"]]
    history = []
    for step in range(steps):
        optimiser.zero_grad()
        rows = {task: next(batches) for task, batches in drawn.items()}
        value = add_gradient(problem, coefficients(), rows, loss)
        if not np.isfinite(value):
            raise TrainingError(
                f"the loss of {'+'.join(problem.tasks)} is {value} at step {step}; lower the option `lr`, "
                "or see whether the experts diverged"
            )
        history.append((step, value))
        if longest is not None:
            torch.nn.utils.clip_grad_norm_(leaves, longest)
        optimiser.step()
        tally.advance(sum(len(some) for some in rows.values()))
    return tuple(history)


def add_gradient(
    problem: LearningProblem, coefficients: Coefficients, rows: Mapping[str, Rows], loss: Loss
) -> float:
    """Return the sum of the tasks' losses, and add its gradient to what it was computed from.

    Args:
        problem: base, vectors, heads, images and the network.
        coefficients: the leaves behind them get the gradient.
        rows: task -> the images of its batch.
        loss: what is summed.
    """
    state = merged_state(problem, coefficients)
    moved = [tensor for tensor in state.values() if tensor.requires_grad]
    slopes = [torch.zeros_like(tensor) for tensor in moved]
    total = 0.0
    # One graph of the network at a time; all of them end in the one merged state, whose own graph is
    # walked once.
    for task in problem.tasks:
        one = loss(task, problem.logits(state, task, rows[task]), rows[task])
        found = torch.autograd.grad(one, moved, allow_unused=True)
        for slope, part in zip(slopes, found, strict=True):
            if part is not None:
                slope.add_(part)
        total += float(one.detach())
    torch.autograd.backward(moved, slopes)
    return total


def merged_state(problem: LearningProblem, coefficients: Coefficients) -> State:
    """Return theta(c), which can be differentiated by the coefficients."""
    state, names = dict(problem.base), learned_names(problem.base)
    for task, found in problem.tasks.items():
        one = coefficients[task]
        weights = [one] * len(names) if one.dim() == 0 else one.unbind()
        for name, weight in zip(names, weights, strict=True):
            state[name] = state[name] + weight * found.vector[name]
    return state


def batches(rows: Rows, size: int, seed: int) -> Iterator[Rows]:
    """Yield batches of some rows, all of one size: passes over all of them, each in a new order."""
    random, waiting = np.random.default_rng(seed), np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, random.permutation(rows)])
        yield waiting[:size]
        waiting = waiting[size:]
