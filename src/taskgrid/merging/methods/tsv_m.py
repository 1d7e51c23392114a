"""TSV-M: the strongest singular directions of each task, an equal share each, made orthonormal.

    theta = theta_0 + lambda * P([U_1 ... U_T]) diag(S_1 ... S_T) P([V_1 ... V_T])^T

for each matrix, where U_t, S_t, V_t are the floor(r / T) largest singular triplets of tau_t, r is its
smaller side, and P is the nearest matrix with orthonormal columns. Gargiulo et al., "Task Singular
Vectors: Reducing Task Interference in Model Merging" (CVPR 2025), TSV-Merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.algebra import Factored
from taskgrid.merging.bases.spectra import (
    Triplets,
    direction_of,
    is_matrix,
    largest_triplets,
    orthogonal_product,
    parts_of,
)
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="TSV-M",
    paper="Gargiulo et al., Task Singular Vectors, CVPR 2025, TSV-Merge",
    options={
        "qkv": Option(
            default="fused",
            choices=("fused", "split"),
            about="whether queries, keys and values are one matrix or three",
            origin="the paper's code, on open_clip's towers; FusionBench's towers have three",
        ),
        "others": Option(
            default="mean",
            choices=("mean", "zero"),
            about="what becomes of tensors that are no matrices: averaged, or left at the base",
            origin="the paper's code",
        ),
    },
    scope="tensor",
)


class TsvM(Factored, Line):
    """Keeps the triplets of each task, and makes those of a subset orthonormal."""

    # Triplets are proportional to the vectors, and dear: they are multiplied, not made again.
    weighs = True

    def lift(self, alone: MergeContext) -> Prepared:
        """Return the stronger half of the triplets of each matrix: two tasks take no more, one none."""
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
        """Return the direction; tensor by tensor, as triplets take more memory than weights."""
        direction: Prepared = {}
        alone = len(context.vectors) == 1
        for key in next(iter(context.vectors.values())):
            factors = {
                task: {} if alone else _lifted(key, vector[key], context.options)
                for task, vector in context.vectors.items()
            }
            direction |= _direction(key, factors, context)
        return direction


def _lifted(key: str, tensor: torch.Tensor, options: Options) -> Prepared:
    lifted: Prepared = {}
    if not is_matrix(tensor):
        return lifted
    for place, part in enumerate(parts_of(key, tensor, options.qkv)):
        found = largest_triplets(part.double(), min(part.shape) // 2)
        lifted[f"left/{place}/{key}"] = found.left
        lifted[f"sizes/{place}/{key}"] = found.sizes
        lifted[f"right/{place}/{key}"] = found.right
    return lifted


def _direction(key: str, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
    weights = [context.coefficient(task) for task in factors]
    places = iter(range(3))

    def merged(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(matrices) == 1:
            return matrices[0]
        place, share = next(places), min(matrices[0].shape) // len(matrices)
        found = [_triplets(lifted, place, key) for lifted in factors.values()]
        return orthogonal_product(
            torch.cat([each.left[:, :share] for each in found], dim=1),
            torch.cat([each.sizes[:share] * w for each, w in zip(found, weights, strict=True)]),
            torch.cat([each.right[:share] for each in found]),
        )

    return direction_of(context, key, merged)


def _triplets(lifted: Prepared, place: int, key: str) -> Triplets:
    left, sizes, right = (lifted[f"{what}/{place}/{key}"] for what in ("left", "sizes", "right"))
    return Triplets(left, sizes, right)


MERGER = TsvM()
