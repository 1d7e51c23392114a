"""Conflicts: what task vectors are to each other, layer by layer, before anything is merged or measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from taskgrid.lattice.subsets import canonical_subset
from taskgrid.merging.bases.spectra import is_matrix, largest_triplets
from taskgrid.models.layout import layer_of, layers
from taskgrid.store.weights import State

ALL = "all"
"""What the whole vector is called among layers."""

RANK = 16
"""Left singular directions that are compared; of smaller matrices a quarter, at least one."""

_PIECE = 1 << 20
"""Weights that are looked at at once."""


@dataclass(frozen=True)
class Conflict:
    """Two task vectors in a layer.

    Attributes:
        task_a: one task.
        task_b: the other one, or the same.
        layer: a layer of the tower, or ``ALL`` of them.
        depth: its place from pixels to features; None for ``ALL``.
        gram: inner product, an entry of the Gram matrix.
        cosine: of the angle between them; None where one of them is zero.
        sign_agreement: share with equal signs, of the weights that both moved; None where there is none.
        overlap: mean over matrices of |U_a^T U_b|^2 / k, U the k strongest left singular vectors; None where
            no matrix was moved by both.
        rank: the largest k; None where the layer has no matrix.
        norm_ratio: norm of a by that of b; None where b is zero.
    """

    task_a: str
    task_b: str
    layer: str
    depth: int | None
    gram: float
    cosine: float | None
    sign_agreement: float | None
    overlap: float | None
    rank: int | None
    norm_ratio: float | None


def conflicts(vectors: Mapping[str, State]) -> list[Conflict]:
    """Return every pair of task vectors, each with itself too, in every layer and as a whole.

    All is computed in float64. Two random subspaces overlap by k over the number of rows on average.

    Args:
        vectors: task -> task vector, all with the same keys and shapes.
    """
    tasks = canonical_subset(vectors)
    found = {key: _Products.of([vectors[task][key] for task in tasks]) for key in vectors[tasks[0]]}
    places: list[tuple[str, int | None, list[_Products]]] = [
        (layer, depth, [each for key, each in found.items() if layer_of(key) == layer])
        for depth, layer in enumerate(layers(found))
    ]
    places.append((ALL, None, list(found.values())))
    summed = [(layer, depth, _Products.total(each)) for layer, depth, each in places]
    return [
        products.conflict((a, tasks[a]), (b, tasks[b]), layer, depth)
        for a, b in _pairs(len(tasks))
        for layer, depth, products in summed
    ]


@dataclass(frozen=True)
class _Products:
    """Sums over the weights of some tensors, for all pairs of T tasks: ``(T, T)`` each, float64.

    Attributes:
        dot: inner products.
        moved: numbers of weights that both moved.
        agreed: those with equal signs less those with opposite ones.
        overlap: overlaps, added up over matrices; on and above the diagonal.
        matrices: numbers of matrices that both moved; on and above the diagonal.
        rank: the largest number of directions compared; 0 without a matrix.
    """

    dot: torch.Tensor
    moved: torch.Tensor
    agreed: torch.Tensor
    overlap: torch.Tensor
    matrices: torch.Tensor
    rank: int

    @classmethod
    def of(cls, deltas: Sequence[torch.Tensor]) -> _Products:
        """Return those of one tensor."""
        count = len(deltas)
        dot, moved, agreed = (torch.zeros(count, count, dtype=torch.float64) for _ in range(3))
        pieces = [torch.split(delta.reshape(-1), _PIECE) for delta in deltas]
        for parts in zip(*pieces, strict=True):
            weights = torch.stack(parts).double()
            signs = weights.sign()
            dot += weights @ weights.T
            agreed += signs @ signs.T
            moved += signs.abs() @ signs.abs().T
        overlap, matrices = torch.zeros_like(dot), torch.zeros_like(dot)
        rank = max(1, min(RANK, min(deltas[0].shape) // 4)) if is_matrix(deltas[0]) else 0
        bases = [_left(delta, rank) for delta in deltas]
        for a, b in _pairs(count if rank else 0):
            directions = min(bases[a].shape[1], bases[b].shape[1])
            if directions:
                overlap[a, b] = (bases[a].T @ bases[b]).square().sum() / directions
                matrices[a, b] = 1
        return cls(dot, moved, agreed, overlap, matrices, rank)

    @classmethod
    def total(cls, parts: Sequence[_Products]) -> _Products:
        """Return those of several tensors."""
        return cls(
            dot=_sum(part.dot for part in parts),
            moved=_sum(part.moved for part in parts),
            agreed=_sum(part.agreed for part in parts),
            overlap=_sum(part.overlap for part in parts),
            matrices=_sum(part.matrices for part in parts),
            rank=max(part.rank for part in parts),
        )

    def conflict(
        self, one: tuple[int, str], other: tuple[int, str], layer: str, depth: int | None
    ) -> Conflict:
        """Return what two tasks, each with its place, are to each other."""
        (a, task_a), (b, task_b) = one, other
        dot, left, right = (float(self.dot[place]) for place in ((a, b), (a, a), (b, b)))
        moved, matrices = float(self.moved[a, b]), float(self.matrices[a, b])
        size = math.sqrt(left) * math.sqrt(right)
        return Conflict(
            task_a,
            task_b,
            layer,
            depth,
            dot,
            cosine=max(-1.0, min(1.0, dot / size)) if size else None,
            sign_agreement=0.5 + 0.5 * float(self.agreed[a, b]) / moved if moved else None,
            overlap=float(self.overlap[a, b]) / matrices if matrices else None,
            rank=self.rank or None,
            norm_ratio=math.sqrt(left / right) if right else None,
        )


def _pairs(count: int) -> Iterable[tuple[int, int]]:
    """Return places of pairs, each of one with itself too: what is asked of two does not depend on order."""
    return itertools.combinations_with_replacement(range(count), 2)


def _sum(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack([*parts]).sum(dim=0)


def _left(delta: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the strongest left singular vectors, ``(m, k)``; fewer where there are no more."""
    if not rank:
        return delta.new_empty(0, 0, dtype=torch.float64)
    found = largest_triplets(delta.double(), rank)
    least = max(delta.shape) * torch.finfo(torch.float64).eps * found.sizes[:1]
    return found.left[:, found.sizes > least]
