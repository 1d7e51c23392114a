"""Representation surgery: a merged model, and for each task a correction of its features.

    z_t(x) = z(x) - U_t relu(D_t z(x)),    z = f(x; theta_merged), D_t of shape (rank, d), U_t of (d, rank)
    D_t, U_t = argmin mean_x mean_i |z_t(x) - f(x; theta_t)|_i

Yang et al., "Representation Surgery for Multi-Task Model Merging" (ICML 2024), equations 4 and 5. There x are
the test images, without their labels. What is learned belongs to one merged model, so its lambda is an
option here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from taskgrid.errors import LineageError, TrainingError
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import add_direction, weighted_sum
from taskgrid.merging.bases.descent import Rows, batches
from taskgrid.merging.bases.passes import features_of
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import MergeContext, Prepared, Sources
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.plugins.storage import Storage
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State

CARD = MergerCard(
    title="Representation surgery",
    paper="Yang et al., Representation Surgery, ICML 2024, equations 4 and 5",
    options={
        "of": Option(
            default="task_arithmetic",
            about="the merge method under it: one that gives a model from nothing but experts",
            origin="the paper, beside others",
        ),
        "inner": Option(default={}, kind="options", about="that method's own options"),
        "scale": Option(
            default=0.3, about="lambda of the merge under it", origin="the paper's task arithmetic"
        ),
        "rank": Option(
            default=16, kind="integer", least=1, about="rank of the correction", origin="the paper"
        ),
        "steps": Option(
            default=1000,
            kind="integer",
            least=1,
            about="steps of Adam for each task",
            origin="the paper's code: 500 rounds of two batches",
        ),
        "lr": Option(default=1e-3, above=0, about="learning rate of Adam", origin="the paper"),
        "batch_size": Option(
            default=16,
            kind="integer",
            least=1,
            about="images of a step",
            origin="the paper",
        ),
        "images": Option(
            default="test",
            choices=("test", "val", "train"),
            about="whose images are looked at, never their labels; `test` makes the rows transductive",
            origin="the paper",
        ),
    },
    gives="features",
    storage=Storage(rank="rank"),
    coefficient="none",
    learned=True,
)


class Surgery:
    """Merges, and corrects the features of each merged task."""

    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        """Return what the method under it prepares, and the learned D and U of every task."""
        sources = Sources(context.vectors.__getitem__)
        merged = _under(context.options).prepare(context.base, sources, context.tasks)
        found = {f"merged/{name}": tensor for name, tensor in merged.items()}
        for task in context.tasks:
            for name in (f"down/{task}", f"up/{task}"):
                found[name] = _learned(context, task, name)
        return found

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return the merged model under it, at its own lambda."""
        merged = {
            name.removeprefix("merged/"): tensor
            for name, tensor in prepared.items()
            if name.startswith("merged/")
        }
        return _under(options).apply(base, merged, options.scale, out=out)

    def features(self, prepared: Prepared, task: str, features: torch.Tensor) -> torch.Tensor:
        """Return ``z - U relu(D z)`` of the merged model's features ``(B, d)`` of a task's images."""
        return corrected(features, prepared[f"down/{task}"], prepared[f"up/{task}"])

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return the images that are drawn, through the merged model and through the expert."""
        drawn = options.steps * options.batch_size
        return sum(2 * min(found.count, drawn) for found in problem.tasks.values())

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Minimise the distance to each expert's features with Adam; losses are added over tasks."""
        vectors, under = {t: found.vector for t, found in problem.tasks.items()}, _under(options)
        prepared = under.prepare(problem.base, Sources(vectors.__getitem__), [*vectors])
        merged = under.apply(problem.base, prepared, options.scale)
        tensors: State = {}
        total = np.zeros(options.steps)
        for task, found in problem.tasks.items():
            order = derive_seed("surgery batches", seed, task)
            drawing = batches(np.arange(found.count), options.batch_size, order)
            drawn = [next(drawing) for _ in range(options.steps)]
            # Neither model moves: no image has to pass twice.
            rows = np.unique(np.concatenate(drawn))
            expert = add_direction(problem.base, weighted_sum([(1.0, found.vector)]), 1.0)
            ours, theirs = (
                features_of(problem, state, task, rows, tally) for state in (merged, expert)
            )
            begun = np.random.default_rng(derive_seed("surgery", seed, task))
            places = [np.searchsorted(rows, each) for each in drawn]
            down, up, losses = fit(ours, theirs, places, options.rank, options.lr, begun)
            if not np.isfinite(losses).all():
                raise TrainingError(
                    f"the features of task {task!r} lead to a loss that is not finite; see whether the "
                    "experts diverged, or lower the options `scale` and `lr`"
                )
            tensors |= {f"down/{task}": down.float().cpu(), f"up/{task}": up.float().cpu()}
            total += losses
        return Learning({}, tuple(enumerate(total.tolist())), tensors)


MERGER = Surgery()


def corrected(features: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return ``z - U relu(D z)``.

    Args:
        features: z, ``(B, d)``.
        down: D, ``(rank, d)``.
        up: U, ``(d, rank)``.
    """
    return features - torch.relu(features @ down.T) @ up.T


def distance(
    ours: torch.Tensor, theirs: torch.Tensor, down: torch.Tensor, up: torch.Tensor
) -> torch.Tensor:
    """Return the mean over images and features of the distance after the correction, ``()``.

    Args:
        ours: features of the merged model, ``(B, d)``.
        theirs: features of the expert, ``(B, d)``.
        down: D, ``(rank, d)``.
        up: U, ``(d, rank)``.
    """
    return functional.l1_loss(corrected(ours, down, up), theirs)


def fit(
    ours: torch.Tensor,
    theirs: torch.Tensor,
    drawn: Sequence[Rows],
    rank: int,
    lr: float,
    begun: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.float64]]:
    """Return D, U and the loss before each step; U begins with zeros, D as torch begins a linear map.

    Args:
        ours: features of the merged model, ``(n, d)`` float64.
        theirs: features of the expert, ``(n, d)`` float64.
        drawn: the images of each step.
        rank: rank of the correction.
        lr: learning rate of Adam.
        begun: what D begins with is drawn from it.
    """
    width = ours.shape[1]
    bound = 1 / math.sqrt(width)
    start = torch.from_numpy(begun.uniform(-bound, bound, (rank, width)))
    down = start.to(ours.device).requires_grad_()
    up = torch.zeros_like(down.T, requires_grad=True)
    optimiser = torch.optim.Adam([down, up], lr=lr)
    losses = []
    for rows in drawn:
        places = torch.from_numpy(rows).to(ours.device)
        optimiser.zero_grad()
        loss = distance(ours[places], theirs[places], down, up)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.detach())
    return down.detach(), up.detach(), torch.stack(losses).cpu().numpy()


def _under(options: Options) -> MergeRecipe:
    return MergeRecipe.of(options.of, options.inner)


def _learned(context: MergeContext, task: str, name: str) -> torch.Tensor:
    found = (context.learned or {}).get(name)
    if found is None:
        raise LineageError(
            f"no surgery was learned for task {task!r}; give its tensors in `learned`"
        )
    return found
