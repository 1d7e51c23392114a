"""WUDI: the matrix that disturbs each task least in the directions that its own vector reads.

    theta = theta_0 + lambda * M,    M minimises sum_t |(M - tau_t) tau_t^T|^2 / |tau_t|^2 for each matrix

Cheng et al., "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task
Vectors" (ICML 2025), the loss of WUDI-Merging. With A_t = tau_t^T tau_t / |tau_t|^2 the gradient is
2 (M sum_t A_t - sum_t tau_t A_t), and M (sum_t A_t) = sum_t tau_t A_t at the optimum. The paper takes some
steps of Adam from sum_t tau_t and stops far from there, so the steps are part of its method.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.merging.bases.additive import Line, weighted_sum
from taskgrid.merging.bases.algebra import Factored
from taskgrid.merging.bases.spectra import parts_of
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.models.layout import projection_of
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="WUDI",
    paper="Cheng et al., Whoever Started the Interference Should End It, ICML 2025, WUDI-Merging",
    options={
        "solver": Option(
            default="adam",
            choices=("adam", "closed_form"),
            about="take steps of Adam from the sum of the task vectors, or go to the optimum itself",
            origin="the paper; merge-and-rebase goes to the optimum",
        ),
        "steps": Option(
            default=300, least=0, about="with `adam`: steps", origin="the paper's code"
        ),
        "lr": Option(
            default=1e-5,
            above=0,
            about="with `adam`: learning rate, about what a weight moves in a step",
            origin="the paper's code",
        ),
        "ridge": Option(
            default=1e-8,
            least=0,
            about="with `closed_form`: added to the diagonal of sum_t A_t, whose trace counts the tasks",
            origin="merge-and-rebase",
        ),
        "tensors": Option(
            default="linear",
            choices=("linear", "matrices", "all"),
            about="what is merged so: the weights of attention and MLP in the blocks, and all others stay at "
            "the base; all matrices, and all others are averaged; the same with kernels of convolutions",
            origin="the paper's code; FusionBench takes matrices, merge-and-rebase all",
        ),
        "qkv": Option(
            default="fused",
            choices=("fused", "split"),
            about="whether queries, keys and values are one matrix or three",
            origin="the paper's code, on open_clip's towers; FusionBench's towers have three",
        ),
    },
    scope="tensor",
)

_FIRST, _SECOND, _LEAST = 0.9, 0.999, 1e-8
"""Adam's betas and epsilon, as the paper leaves them."""


class Wudi(Factored, Line):
    """Keeps A_t and tau_t A_t of each task, and solves for each subset."""

    # A_t does not change with a coefficient, and tau_t A_t in proportion.
    weighs = True

    def lift(self, alone: MergeContext) -> Prepared:
        """Return A_t, ``(n, n)``, and tau_t A_t, ``(m, n)``, of each matrix, float64."""
        ((_, vector),) = alone.vectors.items()
        lifted: Prepared = {}
        for key, tensor in vector.items():
            lifted |= _lifted(key, tensor, alone.options)
        return lifted

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        """Return the direction."""
        direction: Prepared = {}
        for key in next(iter(context.vectors.values())):
            direction |= _direction(key, factors, context)
        return direction

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the direction; tensor by tensor, as the factors take more memory than weights."""
        direction: Prepared = {}
        for key in next(iter(context.vectors.values())):
            factors = {
                task: _lifted(key, vector[key], context.options)
                for task, vector in context.vectors.items()
            }
            direction |= _direction(key, factors, context)
        return direction


def _matrices(key: str, tensor: torch.Tensor, options: Options) -> tuple[torch.Tensor, ...]:
    """Return a tensor as the matrices that are solved for: views of its rows; none where it is not."""
    wanted = {
        "linear": tensor.dim() == 2 and projection_of(key) is not None,
        "matrices": tensor.dim() == 2,
        "all": tensor.dim() >= 2,
    }
    if not wanted[options.tensors] or not tensor.numel():
        return ()
    return parts_of(key, tensor.reshape(len(tensor), -1), options.qkv)


def _lifted(key: str, tensor: torch.Tensor, options: Options) -> Prepared:
    lifted: Prepared = {}
    for place, part in enumerate(_matrices(key, tensor, options)):
        matrix = part.double()
        reads = matrix.T @ matrix
        # A matrix that a task did not move reads nothing.
        reads /= reads.trace() if reads.any() else 1
        lifted[f"reads/{place}/{key}"], lifted[f"pulls/{place}/{key}"] = reads, matrix @ reads
    return lifted


def _direction(key: str, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
    options, weights = context.options, {task: context.coefficient(task) for task in factors}
    terms = [(weights[task], {key: vector[key]}) for task, vector in context.vectors.items()]
    places = range(len(_matrices(key, terms[0][1][key], options)))
    if not places and options.tensors == "linear":
        return {}
    total = weighted_sum(terms)[key]
    if not places:
        return {key: total / len(terms)}
    merged = []
    for place, part in zip(places, _matrices(key, total, options), strict=True):
        reads = _sum(
            factors, {t: float(w != 0) for t, w in weights.items()}, f"reads/{place}/{key}"
        )
        pulls = _sum(factors, weights, f"pulls/{place}/{key}")
        if options.solver == "adam":
            merged.append(_descended(part, reads, pulls, options))
        else:
            reads.diagonal().add_(options.ridge)
            merged.append(_divided(pulls, reads))
    return {key: torch.cat(merged).view_as(total)}


def _sum(factors: Mapping[str, Prepared], weights: Mapping[str, float], name: str) -> torch.Tensor:
    total = torch.zeros_like(next(iter(factors.values()))[name])
    for task, lifted in factors.items():
        total.add_(lifted[name], alpha=weights[task])
    return total


def _descended(
    start: torch.Tensor, reads: torch.Tensor, pulls: torch.Tensor, options: Options
) -> torch.Tensor:
    """Return where Adam gets to."""
    found = start.clone()
    first, second = torch.zeros_like(found), torch.zeros_like(found)
    for step in range(1, options.steps + 1):
        gradient = 2 * (found @ reads - pulls)
        first.lerp_(gradient, 1 - _FIRST)
        second.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
        sizes = (second / (1 - _SECOND**step)).sqrt_().add_(_LEAST)
        found.addcdiv_(first, sizes, value=-options.lr / (1 - _FIRST**step))
    return found


def _divided(right: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return the smallest ``x`` with ``x @ matrix = right``.

    Args:
        right: ``(m, n)`` float64, rows in the range of ``matrix``.
        matrix: ``(n, n)`` float64, symmetric, no eigenvalue below zero but by rounding.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    least = len(matrix) * torch.finfo(torch.float64).eps * matrix.diagonal().max()
    if not failed and factor.diagonal().min().square() > least:
        return torch.cholesky_solve(right.T, factor).T
    found: torch.Tensor = right @ torch.linalg.pinv(matrix, hermitian=True)
    return found


MERGER = Wudi()
