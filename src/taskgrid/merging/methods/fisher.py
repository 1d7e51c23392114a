"""Fisher merging: theta = theta_0 + lambda * (m - theta_0), m = sum_t w_t F_t theta_t / sum_t w_t F_t.

Matena and Raffel, "Merging Models with Fisher-Weighted Averaging" (NeurIPS 2022), section 3: m is the mode
of the product of Gaussians with means theta_t and precisions w_t F_t, weight by weight. The paper's model
is the one at lambda 1; the line to it from the base is what is walked here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from taskgrid.errors import LineageError
from taskgrid.merging.bases.additive import Line, given_weight
from taskgrid.merging.bases.algebra import Fold
from taskgrid.merging.bases.sums import IMAGES, number_of_images
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard, Scope
from taskgrid.plugins.options import Option, Options
from taskgrid.store.weights import State

CARD = MergerCard(
    title="Fisher merging",
    paper="Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022, section 3",
    options={
        "floor": Option(
            default=1e-6,
            least=0.0,
            about="least mean of F_t over images, so that weights of no importance are averaged",
            origin="FusionBench; MaTS takes 1e-8",
        ),
        "floor_by": Option(
            default="add",
            choices=("add", "clamp"),
            about="add the floor to all values, or raise smaller ones to it",
            origin="FusionBench adds, the paper's code clamps",
        ),
        "normalize": Option(
            default=False,
            about="divide each F_t by its norm over all weights, as FusionBench does by default, so that a "
            "task with large gradients counts for no more than others",
        ),
        "weights": Option(
            default=None,
            kind="numbers",
            about="weight w_t of each task, by name; null gives every task 1",
        ),
    },
    needs=("fisher",),
)


class Fisher(Fold, Line):
    """Keeps the sums over tasks of w_t F_t tau_t and of w_t F_t, and divides them."""

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once: a norm is one of all weights."""
        return "model" if options.normalize else "element"

    def lift(self, alone: MergeContext) -> Prepared:
        """Return w_t F_t tau_t and w_t F_t of each tensor, stacked, in float64."""
        ((task, vector),) = alone.vectors.items()
        weight = given_weight(alone.options, task)
        importance = _importance(alone.statistic("fisher", task), alone.options)
        lifted = {}
        for key, delta in vector.items():
            found = importance.get(key)
            if found is None:
                # Buffers have no gradient: they are averaged.
                found = torch.ones_like(delta, dtype=torch.float64)
            elif found.shape != delta.shape:
                raise LineageError(
                    f"the statistic 'fisher' of task {task!r} has shape {tuple(found.shape)} for {key!r}, "
                    f"its task vector {tuple(delta.shape)}; compute it of this expert"
                )
            precision = weight * found.to(delta.device)
            lifted[key] = torch.stack([precision * delta, precision])
        return lifted

    def begin(self, lifted: Prepared) -> Prepared:
        """Return a copy."""
        return {key: pair.clone() for key, pair in lifted.items()}

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        """Add both sums."""
        if reuse:
            return {key: total[key].add_(pair) for key, pair in lifted.items()}
        return {key: total[key] + pair for key, pair in lifted.items()}

    def finish(self, total: Prepared, tasks: Sequence[str], options: Options) -> Prepared:
        """Return the direction: the quotient of the sums; nothing moves where no task has a weight."""
        return {
            key: torch.where(over == 0, 0.0, product / over)
            for key, (product, over) in total.items()
        }


def _importance(statistic: State, options: Options) -> Prepared:
    """Return F_t in float64: the mean over images, floored and, if that is asked, over its norm."""
    count = number_of_images(statistic)
    means = {key: tensor.double() / count for key, tensor in statistic.items() if key != IMAGES}
    by = 1.0
    if options.normalize:
        norm = math.sqrt(sum(float(mean.square().sum()) for mean in means.values()))
        # Zero importance everywhere, and no floor, needs no norm.
        by = 1.0 / (norm + options.floor) if norm + options.floor else 1.0
    for mean in means.values():
        if options.floor_by == "clamp":
            mean.clamp_(min=options.floor)
        else:
            mean.add_(options.floor)
    return {key: mean.mul_(by) for key, mean in means.items()}


MERGER = Fisher()
