"""Bezier curves: a path from one expert to another, bent so that the loss along it is low.

    theta(t) = (1 - t)^2 theta_a + 2 t (1 - t) W + t^2 theta_b,    t is what lambda is elsewhere
    W = argmin of E over t ~ U(0, 1) of the mean loss, under theta(t), of both tasks' images and heads

Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs" (NeurIPS 2018), section 3.
There both ends solve one task. With W = (theta_a + theta_b) / 2 + bend the same curve is

    theta(t) = (1 - t) theta_a + t theta_b + 2 t (1 - t) bend

so that it begins as the straight line, whose bits it has as long as nothing is bent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

from taskgrid.errors import LineageError, TrainingError
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import add_direction, weighted_sum
from taskgrid.merging.bases.descent import Rows, batches
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared, learned_names
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State

CARD = MergerCard(
    title="Bezier curve",
    paper="Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling, NeurIPS 2018, section 3",
    options={
        "steps": Option(
            default=300,
            kind="integer",
            least=0,
            about="steps of Adam, each at one t; 0 leaves the straight line",
            origin="a fine-tuning of the embedded default",
        ),
        "lr": Option(
            default=5e-5,
            above=0,
            about="learning rate of Adam, by which each weight moves in a step at most",
        ),
        "batch_size": Option(
            default=32, kind="integer", least=1, about="images of each task in a step"
        ),
        "images": Option(
            default="train",
            choices=("train", "val"),
            about="whose images are looked at, with their labels",
            origin="the paper",
        ),
    },
    coefficient="threshold",
    learned=True,
    labels=True,
    tasks=2,
)

_FIRST, _SECOND, _BEND = "first", "second", "bend"


class Bezier:
    """Keeps both task vectors and the bend; t takes lambda's place, and at t = 0 is the first expert."""

    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        """Return both task vectors, in the order of the tasks' names, and what was learned, float32."""
        bend = {}
        for name in learned_names(context.base):
            found = (context.learned or {}).get(f"{_BEND}/{name}")
            if found is None:
                raise LineageError(
                    f"no bend of tensor {name!r} was learned for {' and '.join(context.tasks)}; give what "
                    "the method learned for these two in `learned`"
                )
            bend[name] = found
        parts = dict(zip((_FIRST, _SECOND), context.vectors.values(), strict=True)) | {_BEND: bend}
        return {
            f"{part}/{n}": tensor for part, named in parts.items() for n, tensor in named.items()
        }

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return theta(t) at t = ``scale``."""
        direction: Prepared = {}
        for name in learned_names(base):
            terms = [(share, prepared[f"{part}/{name}"]) for part, share in shares(scale).items()]
            direction |= weighted_sum([(share, {name: tensor}) for share, tensor in terms])
        return add_direction(base, direction, 1.0, out)

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return steps times tasks times images of a batch."""
        return int(options.steps * options.batch_size * len(problem.tasks))

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Minimise the cross-entropy along the curve with Adam, beginning with the straight line."""
        bend = {
            name: torch.zeros_like(problem.base[name]).requires_grad_()
            for name in learned_names(problem.base)
        }
        drawn = {
            task: batches(
                np.arange(found.count), options.batch_size, derive_seed("bezier", seed, task)
            )
            for task, found in problem.tasks.items()
        }
        places = np.random.default_rng(derive_seed("bezier", seed)).uniform(size=options.steps)
        optimiser = torch.optim.Adam(bend.values(), lr=options.lr)
        history = []
        for step, t in enumerate(places.tolist()):
            optimiser.zero_grad()
            rows = {task: next(some) for task, some in drawn.items()}
            loss = add_gradient(problem, bend, t, rows)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss of {' and '.join(problem.tasks)} is {loss} at step {step}, t = {t:.3f}; "
                    "lower the option `lr`, or see whether the experts diverged"
                )
            history.append((step, loss))
            optimiser.step()
            tally.advance(sum(map(len, rows.values())))
        tensors = {f"{_BEND}/{name}": one.detach().float().cpu() for name, one in bend.items()}
        return Learning({}, tuple(history), tensors)


MERGER = Bezier()


def shares(t: float) -> dict[str, float]:
    """Return what theta(t) - theta_0 holds of the first task vector, of the second, and of the bend."""
    return {_FIRST: 1 - t, _SECOND: t, _BEND: 2 * t * (1 - t)}


def add_gradient(
    problem: LearningProblem, bend: State, t: float, rows: Mapping[str, Rows]
) -> float:
    """Return the mean of both tasks' losses at theta(t), and add its gradient to that of the bend.

    Args:
        problem: base, vectors, heads, images with their labels, and the network.
        bend: by the names of the base's floating tensors; leaves.
        t: the place on the curve.
        rows: task -> the images of its batch.
    """
    first, second = (found.vector for found in problem.tasks.values())
    by, state = shares(t), dict(problem.base)
    for name, tensor in bend.items():
        line = by[_FIRST] * first[name] + by[_SECOND] * second[name]
        state[name] = state[name] + line + by[_BEND] * tensor
    moved = [state[name] for name in bend]
    slopes, total = [torch.zeros_like(tensor) for tensor in moved], 0.0
    # One graph of the network at a time; all of them end in the one state.
    for task, some in rows.items():
        labels = problem.tasks[task].labels
        assert labels is not None, "the card says `labels`"
        right = labels[torch.from_numpy(some).to(labels.device)]
        one = functional.cross_entropy(problem.logits(state, task, some), right) / len(rows)
        found = torch.autograd.grad(one, moved, allow_unused=True)
        for slope, part in zip(slopes, found, strict=True):
            if part is not None:
                slope.add_(part)
        total += float(one.detach())
    torch.autograd.backward(moved, slopes)
    return total
