"""Changes of low rank, and spaces that those of several tasks have in common.

An expert that was trained by LoRA is its tower with the factors multiplied out, but for the rounding of
its weights. Its change therefore gives the factors back, up to the choice of a basis that a product of two
matrices leaves open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from taskgrid.errors import LineageError
from taskgrid.merging.bases.additive import Line, weighted_sum
from taskgrid.merging.bases.algebra import Factored
from taskgrid.merging.bases.election import Voter, elect, thresholds
from taskgrid.merging.bases.spectra import is_matrix, parts_of
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import Scope
from taskgrid.plugins.options import Options

_FIRST_SKETCH = 64
"""Directions that are tried first, twice as many as long as they do not suffice."""


@dataclass(frozen=True)
class LowRank:
    """A matrix ``(m, n)`` as ``left diag(sizes) right``, float64.

    Attributes:
        left: ``(m, r)``, orthonormal columns.
        sizes: ``(r,)``, falling, all above ``noise``.
        right: ``(r, n)``, orthonormal rows.
        noise: ``()``, singular values up to here are no property of the expert: its weights are rounded.
    """

    left: torch.Tensor
    sizes: torch.Tensor
    right: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True)
class Space:
    """A space that the changes of several tasks lie in: each is ``left @ entries[t] @ right``.

    Attributes:
        left: ``(m, p)``, float64.
        entries: ``(p, q)`` of each task, which an inner method merges.
        right: ``(q, n)``, float64; None where it is the identity.
    """

    left: torch.Tensor
    entries: Sequence[torch.Tensor]
    right: torch.Tensor | None = None

    def product(self, entries: torch.Tensor) -> torch.Tensor:
        """Return the matrix ``(m, n)`` that entries of this space stand for."""
        matrix = self.left @ entries
        return matrix if self.right is None else matrix @ self.right


class LowRankMerger(Factored, Line, ABC):
    """A method that merges changes of low rank in a space of their own, matrix by matrix."""

    # Factors are proportional to the vectors, and dear: they are multiplied, not made again.
    weighs = True

    @abstractmethod
    def space(self, changes: Sequence[LowRank], options: Options) -> Space:
        """Return a space that holds the changes of one matrix, which some task moved.

        Args:
            changes: of each task; some may have rank 0.
            options: the method's.
        """

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once: a global trim needs the whole model."""
        return "model" if options.of == "ties" and options.trim == "global" else "tensor"

    def lift(self, alone: MergeContext) -> Prepared:
        """Return the factors of every matrix that the task moved.

        Raises:
            LineageError: if the expert is none of low rank.
        """
        ((task, vector),) = alone.vectors.items()
        lifted: Prepared = {}
        for key, delta in vector.items():
            if not delta.any():
                continue
            if not is_matrix(delta):
                raise LineageError(
                    f"expert {task!r} is no LoRA expert: it moves {key!r}, which is no matrix; merge it by "
                    "a method for any expert"
                )
            qkv, weights = alone.options.qkv, alone.base[key]
            pairs = zip(parts_of(key, delta, qkv), parts_of(key, weights, qkv), strict=True)
            for place, (part, before) in enumerate(pairs):
                found = low_rank(part, before)
                if found is None:
                    rows, columns = part.shape
                    raise LineageError(
                        f"expert {task!r} is no LoRA expert: its change of {key!r} ({rows} x {columns}) has "
                        f"a rank above {min(rows, columns) // 2}; merge it by a method for any expert"
                    )
                lifted |= {f"{what}/{place}/{key}": each for what, each in vars(found).items()}
        return lifted

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        """Return the direction; a sum is the same in every space that holds its terms."""
        options = context.options
        if options.of == "sum":
            return weighted_sum(
                [(context.coefficient(task), vector) for task, vector in context.vectors.items()]
            )
        spaces: dict[str, list[Space]] = {}
        for key, delta in next(iter(context.vectors.values())).items():
            if any(f"left/0/{key}" in lifted for lifted in factors.values()):
                spaces[key] = [
                    self.space(_changes(factors, f"{place}/{key}", part, context), options)
                    for place, part in enumerate(parts_of(key, delta, options.qkv))
                ]
        merged = _merged(spaces, options)
        return {
            key: torch.cat(
                [space.product(merged[f"{place}/{key}"]) for place, space in enumerate(each)]
            )
            for key, each in spaces.items()
        }


def _changes(
    factors: Mapping[str, Prepared], name: str, part: torch.Tensor, context: MergeContext
) -> list[LowRank]:
    """Return what every task changes of a matrix, times its coefficient; rank 0 where it is nothing."""
    rows, columns = part.shape
    still = LowRank(
        *(part.new_zeros(s, dtype=torch.float64) for s in ((rows, 0), 0, (0, columns), ()))
    )
    found = []
    for task, lifted in factors.items():
        if f"left/{name}" not in lifted:
            found.append(still)
            continue
        left, sizes, right, noise = (lifted[f"{what}/{name}"] for what in vars(still))
        weight = context.coefficient(task)
        size, sign = abs(weight), -1.0 if weight < 0 else 1.0
        found.append(LowRank(left, sizes * size, right * sign, noise * size))
    return found


def _merged(spaces: Mapping[str, Sequence[Space]], options: Options) -> Prepared:
    """Merge by TIES what stands in the spaces: all of it at once, or each matrix by itself."""
    named = {f"{place}/{key}": s for key, each in spaces.items() for place, s in enumerate(each)}
    groups = [[name] for name in named] if options.trim == "tensor" else [list(named)]
    merged: Prepared = {}
    for group in groups:
        tasks = zip(*(named[name].entries for name in group), strict=True)
        vectors = [dict(zip(group, entries, strict=True)) for entries in tasks]
        voters = [Voter(each, thresholds(each, options.density, "global")) for each in vectors]
        merged |= elect(voters, options.combine) if voters else {}
    return merged


def low_rank(delta: torch.Tensor, before: torch.Tensor) -> LowRank | None:
    """Return the factors of a change, or None where its rank is above half of its smaller side.

    Halko, Martinsson and Tropp, "Finding Structure with Randomness" (2011), algorithm 4.4: the range of a
    matrix is that of its products with a few random vectors; what it misses is measured, not estimated.

    Args:
        delta: the change ``(m, n)``.
        before: the weights that changed; their type tells how far the change is rounded.
    """
    matrix = delta.double()
    after = before.to(matrix.device).double() + matrix
    rounding, stored = torch.finfo(before.dtype).eps, torch.finfo(delta.dtype).eps
    lost = rounding * after.norm() + stored * matrix.norm()
    side, count = min(matrix.shape), _FIRST_SKETCH
    while True:
        basis = _range(matrix, min(count, side))
        core = basis.T @ matrix
        if bool((matrix - basis @ core).norm() <= lost):
            break
        if count > side // 2:
            return None
        count *= 2
    left, sizes, right = torch.linalg.svd(core, full_matrices=False)
    noise = rounding * _spread(after) + stored * _spread(matrix)
    rank = int((sizes > noise).sum())
    if rank > side // 2:
        return None
    left, right = basis @ left[:, :rank], right[:rank]
    # Signs that belong to the left vectors: a change of opposite sign differs in the right ones alone.
    signs = left.gather(0, left.abs().argmax(dim=0, keepdim=True)).sign()
    return LowRank(left * signs, sizes[:rank].clone(), right * signs.T, noise)


def _range(matrix: torch.Tensor, count: int) -> torch.Tensor:
    """Return ``count`` orthonormal columns that span the range of a matrix of no higher rank."""
    generator = torch.Generator().manual_seed(0)
    tries = torch.randn(matrix.shape[1], count, generator=generator, dtype=torch.float64)
    basis: torch.Tensor = torch.linalg.qr(matrix @ tries.to(matrix.device)).Q
    # Once more, so that what rounding adds does not turn the basis.
    basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    return basis


def _spread(matrix: torch.Tensor) -> torch.Tensor:
    """Return how large singular values are, at most, of errors that are 1 relative to each entry.

    Seginer, "The Expected Norm of Random Matrices" (2000): of independent errors, the largest norm of a
    row and of a column, up to a constant; those of rounding to the nearest are a third of that.
    """
    columns, rows = (torch.linalg.vector_norm(matrix, dim=dim) for dim in (0, 1))
    largest: torch.Tensor = columns.max() + rows.max()
    return largest
