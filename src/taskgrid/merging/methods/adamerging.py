"""AdaMerging: coefficients that make the merged model sure of images without labels.

    theta(c) = theta_0 + sum_t c_t tau_t,    c = argmin sum_t mean_x H(softmax(h_t(f(x; theta(c)))))

H is the entropy of what head h_t says of an image x of task t; there is one c_t for the model, or one for
every tensor of it. Yang et al., "AdaMerging: Adaptive Model Merging for Multi-Task Learning" (ICLR 2024),
section 3.2. There x are the test images; here validation images, unless the option ``images`` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from taskgrid.errors import TrainingError
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import Line, learned_sum
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared, learned_names
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State

CARD = MergerCard(
    title="AdaMerging",
    paper="Yang et al., AdaMerging, ICLR 2024, section 3.2",
    options={
        "granularity": Option(
            default="layer",
            choices=("task", "layer"),
            about="one coefficient for each task, or for each task and tensor",
            origin="the paper's layer-wise AdaMerging",
        ),
        "steps": Option(
            default=500,
            kind="integer",
            least=0,
            about="steps of Adam; each passes a batch of every task",
            origin="the paper's code; FusionBench takes 1,000",
        ),
        "lr": Option(default=1e-3, above=0, about="learning rate of Adam", origin="the paper"),
        "batch_size": Option(
            default=16,
            kind="integer",
            least=1,
            about="images of each task in a step",
            origin="the paper",
        ),
        "init": Option(default=0.3, about="where every coefficient begins", origin="the paper"),
        "clamp": Option(
            default=True,
            about="keep coefficients between 0 and 1",
            origin="the paper's code; FusionBench does not",
        ),
        "images": Option(
            default="val",
            choices=("val", "test"),
            about="whose images are looked at, never their labels; `test`, as in the paper, makes the rows "
            "transductive",
        ),
    },
    coefficient="none",
    learned=True,
    scope="element",
)


class AdaMerging(Line):
    """Adds the task vectors, times what was learned."""

    def prepare(self, context: MergeContext) -> Prepared:
        """Return sum_t c_t tau_t in float64."""
        return learned_sum(context)

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return steps times tasks times images of a batch."""
        return int(options.steps * options.batch_size * len(problem.tasks))

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Minimise the entropy with Adam."""
        device = next(iter(problem.base.values())).device
        shape = (len(learned_names(problem.base)),) if options.granularity == "layer" else ()
        begun = torch.full(shape, options.init, dtype=torch.float64, device=device)
        free = {task: begun.clone().requires_grad_() for task in problem.tasks}
        optimiser = torch.optim.Adam(free.values(), lr=options.lr)
        drawn = {
            task: _batches(found.count, options.batch_size, derive_seed("adamerging", seed, task))
            for task, found in problem.tasks.items()
        }
        history = []
        for step in range(options.steps):
            optimiser.zero_grad()
            rows = {task: next(batches) for task, batches in drawn.items()}
            loss = add_gradient(problem, _allowed(free, options), rows)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the entropy of {'+'.join(problem.tasks)} is {loss} at step {step}; lower the option "
                    "`lr`, or see whether the experts diverged"
                )
            history.append((step, loss))
            optimiser.step()
            tally.advance(options.batch_size * len(rows))
        found = {task: one.detach().cpu() for task, one in _allowed(free, options).items()}
        return Learning(found, tuple(history))


MERGER = AdaMerging()


def add_gradient(
    problem: LearningProblem,
    coefficients: Mapping[str, torch.Tensor],
    rows: Mapping[str, NDArray[np.int64]],
) -> float:
    """Return the sum over tasks of the mean entropy, and add its gradient to what it was computed from.

    Args:
        problem: base, vectors, heads, images and the network.
        coefficients: task -> ``()`` or ``(tensors,)``; the leaves behind them get the gradient.
        rows: task -> the images of its batch.
    """
    state = _merged(problem, coefficients)
    moved = [tensor for tensor in state.values() if tensor.requires_grad]
    slopes = [torch.zeros_like(tensor) for tensor in moved]
    total = 0.0
    # One graph of the network at a time; all of them end in the one merged state, whose own graph is
    # walked once.
    for task in problem.tasks:
        loss = mean_entropy(problem.logits(state, task, rows[task]))
        found = torch.autograd.grad(loss, moved, allow_unused=True)
        for slope, part in zip(slopes, found, strict=True):
            if part is not None:
                slope.add_(part)
        total += float(loss.detach())
    torch.autograd.backward(moved, slopes)
    return total


def mean_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean over images of the entropy, in nats, of predictions ``(B, C)``."""
    logs = functional.log_softmax(logits, dim=-1)
    return -(logs.exp() * logs).sum(dim=-1).mean()


def _merged(problem: LearningProblem, coefficients: Mapping[str, torch.Tensor]) -> State:
    state, names = dict(problem.base), learned_names(problem.base)
    for task, found in problem.tasks.items():
        one = coefficients[task]
        weights = [one] * len(names) if one.dim() == 0 else one.unbind()
        for name, weight in zip(names, weights, strict=True):
            state[name] = state[name] + weight * found.vector[name]
    return state


def _allowed(free: Mapping[str, torch.Tensor], options: Options) -> dict[str, torch.Tensor]:
    return {task: one.clamp(0, 1) if options.clamp else one for task, one in free.items()}


def _batches(count: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield rows of batches, all of one size: passes over all images, each in a new order."""
    random, waiting = np.random.default_rng(seed), np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, random.permutation(count)])
        yield waiting[:size]
        waiting = waiting[size:]
