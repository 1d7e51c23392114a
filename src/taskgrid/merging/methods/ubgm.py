"""UBGM: task vectors weighted by how sure their tasks are of each weight, so that gradients match.

    theta = theta_0 + sum_t a_t (H_0 + delta + H_t) / Hbar * tau_t,    Hbar = H_0 + delta + sum_t a_t H_t

Daheim et al., "Model Merging by Uncertainty-Based Gradient Matching" (ICLR 2024, arXiv 2310.12808),
section 3, with diagonal H: weight by weight. H_t is the Fisher information of expert t (the statistic
``fisher``), H_0 that of theta_0 (``fisher_base``), both as sums over images; a_t is lambda times w_t times
the point's coefficient. A negative a_t takes a task away. Where losses are quadratic with Hessians H_t, and
experts were held to theta_0 by a prior of precision H_0 + delta, theta is the minimum of the sum of that
prior and a_t times the losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging.bases.additive import add_direction, given_weight
from taskgrid.merging.bases.algebra import Fold
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.store.weights import State

CARD = MergerCard(
    title="Uncertainty-based gradient matching",
    paper="Daheim et al., Model Merging by Uncertainty-Based Gradient Matching, ICLR 2024 "
    "(arXiv 2310.12808), section 3",
    options={
        "delta": Option(
            default=1e-10,
            least=0.0,
            about="precision of a prior around theta_0, the same for every weight, added to H_0",
            origin="the paper's code takes 1e-12",
        ),
        "weights": Option(
            default=None,
            kind="numbers",
            about="weight w_t of each task, by name; null gives every task 1, a negative one takes it away",
        ),
    },
    needs=("fisher", "fisher_base"),
    scope="element",
)

_PRIOR = "prior/"


class Ubgm(Fold):
    """Keeps the sums over tasks of w_t (H_0 + delta + H_t) tau_t and of w_t H_t, and H_0."""

    # Coefficients of a point stand in Hbar too, so they are weights and no factors of the vectors.
    weighs = True

    def prepare(self, context: MergeContext) -> Prepared:
        """Fold the tasks; a point's coefficients multiply their weights."""
        if not context.coefficients:
            return super().prepare(context)
        weights = {
            task: given_weight(context.options, task) * context.coefficient(task)
            for task in context.tasks
        }
        options = Options({**context.options, "weights": weights})
        return super().prepare(replace(context, options=options, coefficients={}))

    def lift(self, alone: MergeContext) -> Prepared:
        """Return w_t (H_0 + delta + H_t) tau_t and w_t H_t of each tensor, stacked, in float64; and H_0."""
        ((task, vector),) = alone.vectors.items()
        weight = given_weight(alone.options, task)
        own, prior = alone.statistic("fisher", task), alone.statistic("fisher_base")
        lifted: Prepared = {}
        for key, delta in vector.items():
            before = _curvature(prior, key, delta, "'fisher_base'")
            after = _curvature(own, key, delta, f"'fisher' of task {task!r}")
            moved = (before.double() + alone.options.delta + after) * delta
            lifted[key] = torch.stack([moved, after.double()]).mul_(weight)
            lifted[_PRIOR + key] = before
        return lifted

    def begin(self, lifted: Prepared) -> Prepared:
        """Return a copy of the sums."""
        return {
            name: tensor if name.startswith(_PRIOR) else tensor.clone()
            for name, tensor in lifted.items()
        }

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        """Add both sums; H_0 is the same for all."""
        found = {}
        for name, tensor in lifted.items():
            if name.startswith(_PRIOR):
                found[name] = tensor
            else:
                found[name] = total[name].add_(tensor) if reuse else total[name] + tensor
        return found

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return the merged model.

        Raises:
            ConfigError: if Hbar is not positive everywhere: there is no minimum.
        """
        direction: Prepared = {}
        for key in base if scale != 0 else ():
            if key in prepared:
                moved, curvature = prepared[key]
                total = curvature * scale + options.delta + prepared[_PRIOR + key]
                _check_positive(total, key, scale)
                direction[key] = moved / total
        return add_direction(base, direction, scale, out)


def _curvature(statistic: State, key: str, delta: torch.Tensor, what: str) -> torch.Tensor:
    """Return H of a tensor; what has no gradient has none."""
    found = statistic.get(key)
    if found is None:
        return torch.zeros_like(delta)
    if found.shape != delta.shape:
        raise LineageError(
            f"the statistic {what} has shape {tuple(found.shape)} for {key!r}, the task vectors "
            f"{tuple(delta.shape)}; compute it of this network"
        )
    return found.to(delta.device)


def _check_positive(total: torch.Tensor, key: str, scale: float) -> None:
    wrong = int((~(total > 0)).sum())
    if wrong:
        raise ConfigError(
            f"merge method 'ubgm' has no model at lambda {scale:g}: H_0 + delta + sum of a_t H_t is not "
            f"positive for {wrong} of {total.numel()} weights of {key!r}; take coefficients that are less "
            "negative, or a larger `delta`"
        )


MERGER = Ubgm()
