"""Least squares per linear map, from Gram matrices of each expert's inputs.

m minimises sum_t |X_t m^T - X_t theta_t^T|^2, where X_t are the inputs that expert t sees; with
G_t = X_t^T X_t it is m^T = (sum_t G_t)^-1 sum_t G_t theta_t^T. The direction m - theta_0 is solved for, by
task vectors in the place of weights, so that along directions that no input has the base stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from taskgrid.errors import LineageError
from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.algebra import Factored
from taskgrid.merging.bases.sums import number_of_images
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.models.layout import multiplies_right
from taskgrid.plugins.options import Options

_ROWS = 64
"""Rows of a Gram matrix that are converted to float64 at a time, and stay in a core's cache."""


class LeastSquares(Factored, Line):
    """Sums G_t tau_t^T and G_t over tasks, and solves for each linear map; other tensors are averaged.

    Attributes:
        scales: whether scales of norms are solved for too, where a statistic holds for them the sums of
            squares ``(d,)`` of their inputs: G_t is diagonal then.
    """

    scales: ClassVar[bool] = False
    # Factors are proportional to the vectors, and dear: they are multiplied, not made again.
    weighs = True

    def off_diagonal(self, options: Options) -> float:
        """Return what entries of G_t off its diagonal are multiplied by."""
        return 1.0

    def means(self, options: Options) -> bool:
        """Return whether means of G_t over images are taken; else sums."""
        return True

    def solved(self, key: str, options: Options) -> bool:
        """Return whether a tensor that has a Gram matrix is solved for."""
        return True

    def lift(self, alone: MergeContext) -> Prepared:
        """Return G_t tau_t^T of each linear map, in float64; of other tensors the task vector."""
        ((task, vector),) = alone.vectors.items()
        grams = self._grams(alone, task)
        return {
            key: grams.times(key, as_map(key, delta)) if key in grams else delta
            for key, delta in vector.items()
        }

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        """Return the direction."""
        grams = [self._grams(context, task) for task in factors]
        direction = {}
        for key, delta in next(iter(context.vectors.values())).items():
            total = torch.zeros_like(next(iter(factors.values()))[key], dtype=torch.float64)
            for task, factor in factors.items():
                total.add_(factor[key], alpha=context.coefficient(task))
            if key not in grams[0]:
                direction[key] = total / len(factors)
                continue
            gram: torch.Tensor | None = None
            for each in grams:
                gram = each.added(gram, key, total)
            assert gram is not None, "there is a task"
            solve = solve_symmetric if gram.dim() == 2 else _solve_diagonal
            direction[key] = as_tensor(key, solve(grams[0].shrink(gram), total), delta.shape)
        return direction

    def _grams(self, context: MergeContext, task: str) -> _Grams:
        return _Grams(context, task, self)


class _Grams:
    """The Gram matrices of a task, made ready one by one."""

    def __init__(self, context: MergeContext, task: str, method: LeastSquares) -> None:
        self._task, self._options, self._method = task, context.options, method
        self._sums = context.statistic("gram", task)
        self._images = number_of_images(self._sums) if method.means(context.options) else 1

    def __contains__(self, key: str) -> bool:
        found = self._find(key)
        return (
            found is not None
            and (found.dim() == 2 or (found.dim() == 1 and self._method.scales))
            and self._method.solved(key, self._options)
        )

    def times(self, key: str, map_: torch.Tensor) -> torch.Tensor:
        """Return the matrix of a weight, shrunk off its diagonal, times a map of its, float64."""
        found = self._of(key, map_)
        if found.dim() == 1:
            return (found.double() * map_).div_(self._images)
        by = self._method.off_diagonal(self._options)
        if by < 1 and found.dtype == torch.float32:
            # Shrunk, the matrix to be solved with is well conditioned: no more is lost than it has lost
            # by being kept in float32, and the products, nearly all of the work, take half the time.
            product = (found @ map_.float()).double().mul_(by)
        else:
            product = (found.double() @ map_).mul_(by)
        product.addcmul_(found.diagonal().double()[:, None], map_, value=1 - by)
        return product.div_(self._images)

    def added(self, total: torch.Tensor | None, key: str, factor: torch.Tensor) -> torch.Tensor:
        """Return a sum and the matrix of a weight whose product is ``factor``, not shrunk yet, float64."""
        found = self._of(key, factor)
        if total is None:
            total = torch.zeros_like(found, dtype=torch.float64)
        # Some rows at a time: all of it in float64 would be written and read back.
        for sums, rows in zip(torch.split(total, _ROWS), torch.split(found, _ROWS), strict=True):
            sums.add_(rows.double(), alpha=1 / self._images)
        return total

    def shrink(self, total: torch.Tensor) -> torch.Tensor:
        """Multiply what is off the diagonal of a sum of matrices, and return it."""
        if total.dim() == 2:
            diagonal = total.diagonal().clone()
            total *= self._method.off_diagonal(self._options)
            total.diagonal().copy_(diagonal)
        return total

    def _of(self, key: str, map_: torch.Tensor) -> torch.Tensor:
        found = self._find(key)
        if found is None or len(found) != len(map_):
            raise LineageError(
                f"the statistic 'gram' of task {self._task!r} does not fit the weight {key!r}; compute it of "
                "this expert"
            )
        return found.to(map_.device)

    def _find(self, key: str) -> torch.Tensor | None:
        # By the weight, as the statistic has it; or by the module, as other codes collect it.
        for name in (key, key.removesuffix(".weight"), key.removesuffix("_weight")):
            if name in self._sums:
                return self._sums[name]
        return None


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
    unit = (gram * by).mul_(by.T)
    # An input that is always zero has nothing on the right either.
    unit.diagonal().add_((sizes == 0).to(unit))
    factor, failed = torch.linalg.cholesky_ex(unit)
    if not failed and factor.diagonal().min().square() > least:
        return torch.cholesky_solve(right * by, factor).mul_(by)
    values, vectors = torch.linalg.eigh(gram)
    kept = torch.where(values > least * values[-1], 1 / values, 0.0)
    found: torch.Tensor = (vectors * kept) @ (vectors.T @ right)
    return found


def _solve_diagonal(gram: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.where(gram > 0, right / gram, 0.0)


def as_map(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a weight in float64 as the ``(inputs, outputs)`` matrix that rows of inputs are multiplied with.

    A scale ``(d,)``, which inputs are multiplied with entry by entry, stays as it is.
    """
    matrix = tensor.double()
    if multiplies_right(key) or matrix.dim() < 2:
        return matrix
    return matrix.reshape(len(tensor), -1).T


def as_tensor(key: str, matrix: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return what ``as_map`` was given, of the shape that it had."""
    return (matrix if multiplies_right(key) or len(shape) < 2 else matrix.T).reshape(shape)
