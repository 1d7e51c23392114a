"""Singular vectors of task matrices: what the spectral methods share.

Squares of matrices are decomposed, which takes a quarter of the time of the matrices themselves. It is done
in float64 and only where squaring loses nothing that matters; elsewhere, and for a matrix of zeros,
LAPACK's singular value decomposition is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from taskgrid.merging.bases.additive import weighted_sum
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.models.layout import projection_of

_LEAST_KEPT = 1e-6
"""Singular vectors of smaller squares, relative to the largest, would be less exact than 1e-9."""

_LEAST_POLAR = 1e-10
"""The same for the polar factor, where a step of Newton and Schulz mends its sizes."""


@dataclass(frozen=True)
class Triplets:
    """The largest singular values of a matrix ``(m, n)``, with their vectors.

    Attributes:
        left: ``(m, k)``, float64.
        sizes: ``(k,)``, float64, falling.
        right: ``(k, n)``, float64.
    """

    left: torch.Tensor
    sizes: torch.Tensor
    right: torch.Tensor


def largest_triplets(matrix: torch.Tensor, count: int) -> Triplets:
    """Return the ``count`` largest singular values of a float64 matrix, with their vectors.

    A matrix of zeros has the unit vectors, as in LAPACK.
    """
    if count == 0:
        return Triplets(matrix[:, :0], matrix.new_empty(0), matrix[:0])
    wide = len(matrix) < matrix.shape[1]
    tall = matrix.T if wide else matrix
    squares, vectors = torch.linalg.eigh(tall.T @ tall)
    squares, vectors = squares.flip(0)[:count], vectors.flip(1)[:, :count]
    if bool(squares[-1] > _LEAST_KEPT * squares[0]):
        sizes = squares.sqrt()
        others = tall @ vectors / sizes
        left, right = (vectors, others) if wide else (others, vectors)
        return Triplets(left.contiguous(), sizes, right.T.contiguous())
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    # Clones: views would keep the memory of all of them.
    return Triplets(left[:, :count].clone(), sizes[:count].clone(), right[:count].clone())


def polar_factor(matrix: torch.Tensor) -> torch.Tensor:
    """Return ``U V^T`` of ``matrix = U S V^T``, float64: all singular values become 1.

    Those that are zero stay so: which directions belong to them is no property of the matrix.
    """
    wide = len(matrix) < matrix.shape[1]
    tall = matrix.T if wide else matrix
    found: torch.Tensor
    squares, vectors = torch.linalg.eigh(tall.T @ tall)
    if len(squares) and bool(squares[0] > _LEAST_POLAR * squares[-1]):
        found = tall @ (vectors / squares.sqrt() @ vectors.T)
        if bool(squares[0] <= _LEAST_KEPT * squares[-1]):
            found = 1.5 * found - 0.5 * found @ (found.T @ found)
    else:
        left, sizes, right = torch.linalg.svd(tall, full_matrices=False)
        least = len(tall) * torch.finfo(torch.float64).eps * sizes[:1]
        found = left * (sizes > least) @ right
    return found.T if wide else found


def orthogonal_product(
    left: torch.Tensor, sizes: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Return ``P(left) diag(sizes) P(right)``, where P makes columns or rows orthonormal.

    Args:
        left: ``(m, k)`` float64, singular vectors of several matrices beside each other.
        sizes: ``(k,)`` float64.
        right: ``(k, n)`` float64.
    """
    return (polar_factor(left) * sizes) @ polar_factor(right)


def is_matrix(tensor: torch.Tensor) -> bool:
    """Return whether spectral methods decompose a tensor; kernels of convolutions they do not."""
    return tensor.dim() == 2 and tensor.numel() > 0


def parts_of(key: str, tensor: torch.Tensor, qkv: str) -> tuple[torch.Tensor, ...]:
    """Return the matrices that a tensor is decomposed as: views of its rows.

    Args:
        key: the tensor's name.
        tensor: a matrix.
        qkv: ``fused``, or ``split``: queries, keys and values apart.
    """
    if qkv == "split" and projection_of(key) == "qkv" and len(tensor) % 3 == 0:
        return tensor.chunk(3)
    return (tensor,)


def direction_of(
    context: MergeContext, key: str, merge: Callable[[Sequence[torch.Tensor]], torch.Tensor]
) -> Prepared:
    """Return the direction of one tensor in float64, by name; nothing where it stays at the base.

    Args:
        context: the subset's, with the options ``qkv`` and ``others``.
        key: the tensor's name.
        merge: makes one matrix of those of the tasks, in float64 and in canonical order.
    """
    weighted = [
        (context.coefficient(task), {key: vector[key]}) for task, vector in context.vectors.items()
    ]
    if not is_matrix(weighted[0][1][key]):
        total = weighted_sum(weighted) if context.options.others == "mean" else {}
        return {name: tensor / len(weighted) for name, tensor in total.items()}
    split = [
        [part.double() * weight for part in parts_of(key, vector[key], context.options.qkv)]
        for weight, vector in weighted
    ]
    return {key: torch.cat([merge(matrices) for matrices in zip(*split, strict=True)])}


def whole_direction(
    context: MergeContext, merge: Callable[[Sequence[torch.Tensor]], torch.Tensor]
) -> Prepared:
    """Return the direction of all tensors; arguments as for ``direction_of``."""
    direction: Prepared = {}
    for key in next(iter(context.vectors.values())):
        direction |= direction_of(context, key, merge)
    return direction


def sum_of(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of matrices, added in their order."""
    total = matrices[0].clone()
    for matrix in matrices[1:]:
        total += matrix
    return total
