"""RegMean++: RegMean layer by layer, on what the layers that are merged already hand on.

    theta = theta_0 + lambda * (m - theta_0),   m^T = (sum_t G_t)^-1 sum_t G_t theta_t^T in every layer

Nguyen et al., "RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model Merging"
(TMLR 2026, arXiv 2508.03121): G_t = X_t^T X_t as in RegMean, but X_t are the inputs that expert t's maps have
in a layer when images of task t have come through the *merged* layers before it. So layers are walked from
the input to the output, and Gram matrices are collected again after each. Tensors without one are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.machine.meter import Tally
from taskgrid.merging.bases.additive import Line, add_direction, weighted_sum
from taskgrid.merging.bases.least_squares import LeastSquares
from taskgrid.merging.bases.passes import in_batches
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.seam import MergeContext, Prepared, learned_names
from taskgrid.models.layout import layer_of
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.statistics.gram import collect
from taskgrid.store.weights import State

CARD = MergerCard(
    title="RegMean++",
    paper="Nguyen et al., RegMean++, TMLR 2026",
    options={
        "off_diagonal": Option(
            default=0.95,
            least=0.0,
            most=1.0,
            about="factor on entries of G_t off its diagonal; 1 is least squares",
            origin="FusionBench",
        ),
        "images": Option(
            default="train",
            choices=("train", "val", "test"),
            about="whose images are looked at, never their labels; `test` makes the rows transductive",
            origin="FusionBench",
        ),
        "count": Option(
            default=256,
            kind="integer",
            least=1,
            about="images of each task, drawn from the run's seed; all where there are fewer",
            origin="FusionBench",
        ),
        "batch_size": Option(default=32, kind="integer", least=1, about="images of a pass"),
    },
    learned=True,
    instead=("gram",),
)


class _Shrunk(LeastSquares):
    def off_diagonal(self, options: Options) -> float:
        return float(options.off_diagonal)


_SOLVER = _Shrunk()


class RegMeanPlusPlus(Line):
    """Adds up each task's part of the direction, as it was learned."""

    weighs = True

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction; of Gram matrices that were given they are solved for as they are."""
        if context.learned is None:
            return _SOLVER.prepare(context)
        parts, names = context.learned, learned_names(context.base)
        return weighted_sum(
            [
                (context.coefficient(task), {name: parts[_part(task, name)] for name in names})
                for task in context.tasks
            ]
        )

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return the images of all tasks, once for each layer."""
        images = sum(min(found.count, options.count) for found in problem.tasks.values())
        return int(images * len(layers_of(problem.base)))

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Walk the layers; return for every task and tensor its part of m - theta_0, in float32.

        Raises:
            ConfigError: if the network is a tangent model.
        """
        if problem.tower is None:
            raise ConfigError(
                "merge method 'regmean_pp' collects what merged layers hand on, and a tangent model has no "
                "merged layers; use 'regmean'"
            )
        rows = {
            task: _drawn(found, options.count, derive_seed("regmean_pp", seed, task))
            for task, found in problem.tasks.items()
        }
        merged, parts = dict(problem.base), dict[str, torch.Tensor]()
        for names in layers_of(problem.base):
            context = MergeContext(
                {name: problem.base[name] for name in names},
                {
                    task: {name: found.vector[name] for name in names}
                    for task, found in problem.tasks.items()
                },
                options,
                statistics={
                    "gram": {
                        task: _grams(problem, merged, names, task, rows[task], options, tally)
                        for task in problem.tasks
                    }
                },
            )
            solved = _solved(context)
            whole = weighted_sum([(1.0, part) for part in solved.values()])
            merged |= add_direction(context.base, whole, 1.0)
            for task, part in solved.items():
                parts |= {_part(task, name): one.float().cpu() for name, one in part.items()}
        return Learning({}, (), parts)


MERGER = RegMeanPlusPlus()


def layers_of(base: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Return the floating tensors of each layer, in the order in which images pass the layers."""
    layers: dict[str, list[str]] = {}
    for name, tensor in base.items():
        if tensor.is_floating_point():
            layers.setdefault(layer_of(name), []).append(name)
    places = {"embedding": 0, "output": 2}
    # States are in the order of modules, but for parameters of the tower's own, which come first.
    return [layers[layer] for layer in sorted(layers, key=lambda layer: places.get(layer, 1))]


def _grams(
    problem: LearningProblem,
    merged: State,
    names: Sequence[str],
    task: str,
    rows: NDArray[np.int64],
    options: Options,
    tally: Tally,
) -> State:
    """Return G_t of one layer: the expert's own, behind the layers that are merged."""
    found = problem.tasks[task]
    own = add_direction(
        {name: problem.base[name] for name in names}, {n: found.vector[n] for n in names}, 1.0
    )

    def forward(images: torch.Tensor, more: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return problem.features({**merged, **own, **more}, images)

    assert problem.tower is not None
    inputs = (found.inputs(some) for some in in_batches(rows, options.batch_size, tally))
    sums = collect(problem.tower, inputs, forward, frozenset(names))
    return {**sums, "images": torch.tensor(len(rows))}


def _solved(context: MergeContext) -> dict[str, Prepared]:
    """Return each task's part of the direction: what is solved for is linear in the task vectors."""
    factors = {task: _SOLVER.lift(context.alone(task)) for task in context.tasks}
    return {
        task: _SOLVER.join(
            factors, replace(context, coefficients={t: float(t == task) for t in factors})
        )
        for task in factors
    }


def _drawn(found: LearningTask, count: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(found.count)[:count])


def _part(task: str, name: str) -> str:
    return f"{task}/{name}"
