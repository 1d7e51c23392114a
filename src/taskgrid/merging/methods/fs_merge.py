"""FS-Merge: a supernet over all experts that learns their features, folded into one model.

    W = sum_t M_t W_t U_t in every linear layer,    z_t(x) = O_t f(x; theta)
    M, U, O, LayerNorms = argmin mean_t mean_x |z_t(x) - f(x; theta_t)|^2 / d

Kinderman et al., "Foldable SuperNets: Scalable Merging of Transformers with Different Initializations and
Tasks" (TMLR 2025, arXiv 2410.01483), with the loss that its code calls ``rec_with_ids``: images of task t
are to have the features of expert t. ``alignment.supernet`` has M and U. The weights of the experts are
not moved, so they need not have a base in common. Lambda has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from taskgrid.alignment.supernet import Supernet, supernet
from taskgrid.errors import LineageError, TrainingError
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import add_direction, weighted_sum
from taskgrid.merging.bases.descent import Rows, batches
from taskgrid.merging.bases.passes import features_of
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.plugins.storage import Storage
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State

CARD = MergerCard(
    title="FS-Merge",
    paper="Kinderman et al., Foldable SuperNets, TMLR 2025 (arXiv 2410.01483)",
    options={
        "rank": Option(
            default=12,
            kind="integer",
            least=0,
            about="rank of M and U beside their diagonals; 0 leaves diagonals",
            origin="the paper's code",
        ),
        "init": Option(
            default="first",
            choices=("first", "average"),
            about="where it begins: the first task's expert, or the mean of all experts",
            origin="the paper's code",
        ),
        "steps": Option(
            default=1400,
            kind="integer",
            least=0,
            about="steps of AdamW; each passes a batch of every task",
            origin="the paper's code: 100 epochs of two tasks",
        ),
        "batch_size": Option(
            default=64,
            kind="integer",
            least=1,
            about="images of each task in a step",
            origin="the paper's code: 128 of two tasks",
        ),
        "lr": Option(
            default=1e-4,
            above=0,
            about="the highest learning rate: it rises for 30 % of the steps and falls for the rest",
            origin="the paper's code; 0.001 where rank is 0",
        ),
        "weight_decay": Option(default=1e-3, least=0, about="of AdamW", origin="the paper's code"),
        "images": Option(
            default="train",
            choices=("train", "val", "test"),
            about="whose images are looked at, never their labels; `test` makes the rows transductive",
            origin="the paper",
        ),
        "count": Option(
            default=900,
            kind="integer",
            least=1,
            about="images of each task, drawn from the run's seed; all where there are fewer",
            origin="the paper's code: 100 with 800 augmentations",
        ),
    },
    gives="features",
    storage=Storage(square=True),
    coefficient="none",
    learned=True,
)


class FoldableSupernet:
    """Takes the folded model, and turns its features into those of each expert."""

    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the folded model and the output maps, as they were learned."""
        names = [_weights(key) for key, one in context.base.items() if one.is_floating_point()]
        names += [_output(task) for task in context.tasks]
        learned = context.learned or {}
        for name in names:
            if name not in learned:
                raise LineageError(
                    f"no supernet with {name!r} was learned for {'+'.join(context.tasks)}; give its "
                    "tensors in `learned`"
                )
        return {name: learned[name] for name in names}

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return the folded model."""
        target = out if out is not None else {}
        for key, tensor in base.items():
            found = prepared.get(_weights(key), tensor)
            target[key] = (
                found.to(tensor.dtype, copy=True) if out is None else out[key].copy_(found)
            )
        return target

    def features(self, prepared: Prepared, task: str, features: torch.Tensor) -> torch.Tensor:
        """Return ``O_t z`` of the folded model's features ``(B, d)`` of a task's images."""
        return features @ prepared[_output(task)].T

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return the images through the experts, and those of all steps."""
        seen = sum(min(found.count, options.count) for found in problem.tasks.values())
        return int(seen + _steps(problem, options) * len(problem.tasks) * options.batch_size)

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Learn the supernet in float32 and fold it in float64.

        Raises:
            LineageError: if the towers are no vision transformers.
        """
        net = supernet(_experts(problem), options.init, options.rank, seed)
        teachers = {
            task: _teacher(problem, net.tower(place), task, options, seed, tally)
            for place, task in enumerate(problem.tasks)
        }
        optimiser = torch.optim.AdamW(
            net.leaves(), lr=options.lr, weight_decay=options.weight_decay
        )
        steps, history = _steps(problem, options), []
        rate = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, options.lr, total_steps=max(steps, 1), anneal_strategy="linear"
        )
        for step in range(steps):
            optimiser.zero_grad()
            batch = {task: teacher.next() for task, teacher in teachers.items()}
            loss = add_gradient(problem, net, batch)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss of {'+'.join(problem.tasks)} is {loss} at step {step}; lower the option "
                    "`lr`, or see whether the experts diverged"
                )
            history.append((step, loss))
            optimiser.step()
            rate.step()
            tally.advance(sum(len(rows) for rows, _ in batch.values()))
        return Learning({}, tuple(history), _tensors(problem, net.double()))


MERGER = FoldableSupernet()


def add_gradient(
    problem: LearningProblem, net: Supernet, batch: Mapping[str, tuple[Rows, torch.Tensor]]
) -> float:
    """Return the loss of a batch, and add its gradient to the leaves of a supernet.

    Args:
        problem: the network, and the images.
        net: a supernet over the experts of the problem's tasks.
        batch: task -> some rows, and what the expert's features of them are, ``(B, d)``.
    """
    folded, total = net.folded(), 0.0
    made = [*folded.values(), net.output.dense()]
    # One graph of the network at a time; that of the folding is walked once.
    held = [one.detach().requires_grad_() for one in made]
    state = {**problem.base, **dict(zip(folded, held[:-1], strict=True))}
    for output, (task, (rows, theirs)) in zip(held[-1], batch.items(), strict=True):
        ours = problem.features(state, problem.tasks[task].inputs(rows)) @ output.T
        loss = functional.mse_loss(ours, theirs) / len(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    slopes = [torch.zeros_like(one) if one.grad is None else one.grad for one in held]
    torch.autograd.backward(made, slopes)
    return total


@dataclass(frozen=True, eq=False)
class _Teacher:
    """An expert's features of some images.

    Attributes:
        rows: the images, ``(n,)``.
        features: what it makes of them, ``(n, d)`` float32.
        order: batches of places in both.
    """

    rows: Rows
    features: torch.Tensor
    order: Iterator[Rows]

    def next(self) -> tuple[Rows, torch.Tensor]:
        some = next(self.order)
        return self.rows[some], self.features[torch.from_numpy(some)]


def _experts(problem: LearningProblem) -> list[State]:
    vectors = [found.vector for found in problem.tasks.values()]
    return [add_direction(problem.base, weighted_sum([(1.0, one)]), 1.0) for one in vectors]


def _teacher(
    problem: LearningProblem, expert: State, task: str, options: Options, seed: int, tally: Tally
) -> _Teacher:
    random = np.random.default_rng(derive_seed("fs_merge images", seed, task))
    rows = np.sort(random.permutation(problem.tasks[task].count)[: options.count])
    features = features_of(problem, {**problem.base, **expert}, task, rows, tally).float()
    order = batches(
        np.arange(len(rows)), options.batch_size, derive_seed("fs_merge batches", seed, task)
    )
    return _Teacher(rows, features, order)


def _tensors(problem: LearningProblem, net: Supernet) -> State:
    weights = {
        _weights(key): one.to(problem.base[key].dtype).cpu() for key, one in net.folded().items()
    }
    maps = zip(problem.tasks, net.output.dense().float().cpu(), strict=True)
    return weights | {_output(task): one.contiguous() for task, one in maps}


def _steps(problem: LearningProblem, options: Options) -> int:
    # One expert has its own features from the start, and noise would only lead away from them.
    return int(options.steps) if len(problem.tasks) > 1 else 0


def _weights(key: str) -> str:
    return f"merged/{key}"


def _output(task: str) -> str:
    return f"output/{task}"
