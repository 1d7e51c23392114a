"""RegMean: each linear map is the one that all experts' maps agree with best on their own inputs.

    theta = theta_0 + lambda * (m - theta_0),   m^T = (sum_t G_t)^-1 sum_t G_t theta_t^T

Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models" (ICLR 2023), equation 2
and algorithm 1: m minimises sum_t |X_t m^T - X_t theta_t^T|^2, where X_t are the inputs that expert t sees
and G_t = X_t^T X_t, its entries off the diagonal multiplied by alpha. All other tensors are averaged. The
paper's model is the one at lambda 1; the line to it from the base is what is walked here.

A map with several parts that share an input, as the fused ``in_proj``, gives what its parts would give
apart: the result does not depend on the layout.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.errors import LineageError
from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.algebra import Factored
from taskgrid.merging.bases.sums import number_of_images
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.models.layout import layer_of, multiplies_right
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="RegMean",
    paper="Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023, "
    "equation 2 and algorithm 1",
    options={
        "alpha": Option(
            default=0.9,
            least=0.0,
            most=1.0,
            about="factor on entries of G_t off its diagonal; 1 is least squares, 0 weighs each input alone",
            origin="the paper; FusionBench takes 0.95",
        ),
        "normalize": Option(
            default="images",
            choices=("images", "none"),
            about="take means of G_t over images, or sums, in which a task with more images counts for more",
        ),
        "layers": Option(
            default="all",
            choices=("all", "blocks"),
            about="which linear maps are solved for; `blocks` averages patch embedding and projection, as "
            "codes do that know nn.Linear alone",
        ),
    },
    needs=("gram",),
    scope="tensor",
)


class RegMean(Factored, Line):
    """Sums G_t tau_t^T and G_t over tasks, and solves for each linear map."""

    # Factors are proportional to the vectors, and dear: they are multiplied, not made again.
    weighs = True

    def lift(self, alone: MergeContext) -> Prepared:
        """Return G_t tau_t^T of each linear map, in float64; of other tensors the task vector."""
        ((task, vector),) = alone.vectors.items()
        grams = _Grams(alone, task)
        return {
            key: grams.of(key, delta) @ _matrix(key, delta) if key in grams else delta
            for key, delta in vector.items()
        }

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        """Return the direction."""
        grams = [_Grams(context, task) for task in factors]
        direction = {}
        for key, delta in next(iter(context.vectors.values())).items():
            total = torch.zeros_like(next(iter(factors.values()))[key], dtype=torch.float64)
            for task, factor in factors.items():
                total.add_(factor[key], alpha=context.coefficient(task))
            if key not in grams[0]:
                direction[key] = total / len(factors)
                continue
            # One at a time: all Gram matrices of a layer take more than its weights.
            gram = grams[0].of(key, delta)
            for more in grams[1:]:
                gram += more.of(key, delta)
            solved = solve_symmetric(gram, total)
            direction[key] = _tensor(key, solved, delta.shape)
        return direction


class _Grams:
    """The Gram matrices of a task, made ready one by one."""

    def __init__(self, context: MergeContext, task: str) -> None:
        self._task, self._options = task, context.options
        self._sums = context.statistic("gram", task)
        images = number_of_images(self._sums, f"'gram' of task {task!r}")
        self._images = images if context.options.normalize == "images" else 1

    def __contains__(self, key: str) -> bool:
        inside = self._options.layers == "all" or layer_of(key).startswith("block")
        return key in self._sums and inside

    def of(self, key: str, delta: torch.Tensor) -> torch.Tensor:
        """Return the matrix of a weight in float64, shrunk off its diagonal."""
        if key not in self._sums or len(self._sums[key]) != _matrix(key, delta).shape[0]:
            raise LineageError(
                f"the statistic 'gram' of task {self._task!r} does not fit the weight {key!r}; compute it of "
                "this expert"
            )
        gram = self._sums[key].to(delta.device, torch.float64) / self._images
        diagonal = gram.diagonal().clone()
        gram *= self._options.alpha
        gram.diagonal().copy_(diagonal)
        return gram


def solve_symmetric(gram: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the smallest x with ``gram @ x = right``: zero where ``gram`` has nothing.

    Args:
        gram: ``(d, d)`` float64, symmetric, no eigenvalue below zero but by rounding.
        right: ``(d, n)`` float64 in the range of ``gram``.
    """
    # Statistics are kept in float32: what lies below its rounding is no direction that inputs have.
    least = len(gram) * torch.finfo(torch.float32).eps
    # Inputs differ in size by orders of magnitude: with ones on the diagonal it is better conditioned.
    sizes = gram.diagonal().clamp_min(0).sqrt()
    by = torch.where(sizes > 0, 1 / sizes, 0.0)[:, None]
    unit = gram * by * by.T
    # An input that is always zero has nothing on the right either.
    unit.diagonal().add_((sizes == 0).to(unit))
    factor, failed = torch.linalg.cholesky_ex(unit)
    if not failed and factor.diagonal().min().square() > least:
        return torch.cholesky_solve(right * by, factor).mul_(by)
    values, vectors = torch.linalg.eigh(gram)
    kept = torch.where(values > least * values[-1], 1 / values, 0.0)
    found: torch.Tensor = (vectors * kept) @ (vectors.T @ right)
    return found


def _matrix(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a weight as the ``(inputs, outputs)`` matrix that rows of inputs are multiplied with."""
    matrix = tensor.double()
    return matrix if multiplies_right(key) else matrix.reshape(len(tensor), -1).T


def _tensor(key: str, matrix: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return (matrix if multiplies_right(key) else matrix.T).reshape(shape)


MERGER = RegMean()
