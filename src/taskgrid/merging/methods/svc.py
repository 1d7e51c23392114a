"""SVC: task arithmetic whose singular values are lowered where tasks add up in one direction.

With M = lambda * sum_t tau_t = U S V^T, for each matrix,

    s_rt = <u_r^T M, u_r^T tau_t> / |u_r^T tau_t|^2,    gamma_r = T / sum_t max(alpha, s_rt)
    theta = theta_0 + U diag(gamma) S V^T

"When Shared Knowledge Hurts: Spectral Over-Accumulation in Model Merging" (arXiv 2602.05536), algorithm 1,
equations 4 and 8. As gamma depends on lambda, the model is not affine in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.merging.bases.additive import add_direction
from taskgrid.merging.bases.spectra import is_matrix, largest_triplets, parts_of, sum_of
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.store.weights import State

CARD = MergerCard(
    title="Singular value calibration",
    paper="When Shared Knowledge Hurts: Spectral Over-Accumulation in Model Merging, arXiv 2602.05536, "
    "algorithm 1",
    options={
        "alpha": Option(
            default=1.0,
            above=0,
            about="least share s_rt that counts; smaller ones let weak directions grow by up to 1 / alpha",
            origin="the paper's algorithm; FusionBench's configurations take 0.1",
        ),
        "qkv": Option(
            default="fused",
            choices=("fused", "split"),
            about="whether queries, keys and values are one matrix or three",
            origin="open_clip's towers; FusionBench's have three",
        ),
        "others": Option(
            default="sum",
            choices=("sum", "mean", "zero"),
            about="what becomes of tensors that are no matrices: as in task arithmetic, averaged, or left "
            "at the base",
            origin="FusionBench",
        ),
    },
    scope="tensor",
)


class Svc:
    """Keeps the singular directions of each sum, and the shares of the tasks in them at lambda 1."""

    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        """Return of each matrix U, ``(m, r)``, U^T M, ``(r, n)``, and s, ``(r, T)``; else a direction."""
        prepared: Prepared = {}
        options, tasks = context.options, context.tasks
        for key, first in next(iter(context.vectors.values())).items():
            deltas = [context.vectors[task][key].double() for task in tasks]
            if is_matrix(first):
                split = [parts_of(key, delta, options.qkv) for delta in deltas]
                for place, matrices in enumerate(zip(*split, strict=True)):
                    prepared |= _calibration(f"{place}/{key}", matrices)
            elif options.others != "zero":
                over = len(tasks) if options.others == "mean" else 1
                prepared[f"line/{key}"] = sum_of(deltas) / over
        return prepared

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return the calibrated model."""
        direction: Prepared = {}
        for key, tensor in base.items():
            if f"line/{key}" in prepared:
                direction[key] = prepared[f"line/{key}"]
            elif f"left/0/{key}" in prepared and scale != 0:
                places = range(len(parts_of(key, tensor, options.qkv)))
                parts = [_calibrated(prepared, f"{n}/{key}", scale, options) for n in places]
                direction[key] = torch.cat(parts)
        return add_direction(base, direction, scale, out)


def _calibration(name: str, matrices: tuple[torch.Tensor, ...]) -> Prepared:
    total = sum_of(matrices)
    left = largest_triplets(total, min(total.shape)).left
    merged = left.T @ total
    shares = []
    for matrix in matrices:
        own = left.T @ matrix
        size = own.square().sum(dim=1)
        # A direction that a task has no part in says nothing of it: alpha counts.
        share = (merged * own).sum(dim=1) / torch.where(size > 0, size, 1)
        shares.append(share)
    return {f"left/{name}": left, f"rows/{name}": merged, f"shares/{name}": torch.stack(shares, 1)}


def _calibrated(prepared: Prepared, name: str, scale: float, options: Options) -> torch.Tensor:
    """Return U diag(gamma) S V^T over lambda."""
    shares = prepared[f"shares/{name}"]
    factors = shares.shape[1] / (scale * shares).clamp_min(options.alpha).sum(dim=1)
    return (prepared[f"left/{name}"] * factors) @ prepared[f"rows/{name}"]


MERGER = Svc()
