"""LiNeS: the deeper a layer, the more of the merged vector it gets.

Wang et al., "LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging" (ICLR
2025), equation 2 and section 4.3: theta = theta_0 + (alpha + beta l / (L - 1)) * tau in block l of L,
theta_0 + alpha * tau outside of the blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from taskgrid.merging.bases.additive import given_weight, weighted_sum
from taskgrid.merging.bases.inner import merged_vector
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.models.layout import layer_of, layers
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option, Options
from taskgrid.store.weights import State
from taskgrid.vectors import add_scaled

CARD = MergerCard(
    title="LiNeS",
    paper="Wang et al., LiNeS, ICLR 2025, section 4.3",
    options={
        "alpha": Option(
            default=None,
            kind="number",
            about="what the first block gets; null: |sum of task vectors|_1 / |merged vector|_1 / tasks",
            origin="the paper",
        ),
        "of": Option(
            default="sum",
            choices=("sum", "ties"),
            about="what is scaled: the sum of the task vectors, or their merge by TIES",
            origin="the paper shows both",
        ),
        "density": Option(
            default=0.2,
            above=0,
            most=1,
            about="with `ties`: share that trimming keeps",
            origin="TIES",
        ),
        "trim": Option(
            default="global",
            choices=("global", "tensor"),
            about="with `ties`: whether that share is of the whole vector or of every tensor",
            origin="TIES",
        ),
        "combine": Option(
            default="mean",
            choices=("mean", "sum", "max"),
            about="with `ties`: what becomes of the entries of the elected sign",
            origin="TIES, and the paper's code",
        ),
        "zero_sign": Option(
            default="majority",
            choices=("majority", "positive"),
            about="with `ties`: the sign where the entries add up to exactly zero",
            origin="TIES",
        ),
        "weights": Option(
            default=None,
            kind="numbers",
            about="weight of each task, by name, in the sum or in the election; null gives 1",
        ),
    },
    coefficient="threshold",
)

_DIRECTION, _DEPTH, _ALPHA = "direction", "depth", "alpha"


class Lines:
    """Keeps the merged vector, the depth of every tensor, and alpha; beta takes lambda's place."""

    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        """Return the merged vector, and the numbers that scale it, all float64."""
        direction, alpha = merged_vector(context), context.options.alpha
        if alpha is None:
            alpha = _first(context, direction)
        prepared = {f"{_DIRECTION}/{name}": tensor for name, tensor in direction.items()}
        numbers = {f"{_DEPTH}/{name}": depth for name, depth in _depths(context.base).items()}
        for name, number in (numbers | {_ALPHA: alpha}).items():
            prepared[name] = torch.tensor(number, dtype=torch.float64)
        return prepared

    def apply(
        self,
        base: Mapping[str, torch.Tensor],
        prepared: Prepared,
        scale: float,
        options: Options,
        out: State | None = None,
    ) -> State:
        """Return theta_0 + (alpha + lambda * depth) * tau; at lambda 0 all get alpha."""
        alpha, target = float(prepared[_ALPHA]), out if out is not None else {}
        with torch.no_grad():
            for name, tensor in base.items():
                delta = prepared.get(f"{_DIRECTION}/{name}")
                own = alpha
                if delta is not None:
                    own += scale * float(prepared[f"{_DEPTH}/{name}"])
                target[name] = add_scaled(tensor, delta, own, None if out is None else out[name])
        return target


def _first(context: MergeContext, direction: Prepared) -> float:
    """Return the paper's alpha: as large as a mean of the task vectors would be."""
    summed = weighted_sum(
        [(given_weight(context.options, task), vector) for task, vector in context.vectors.items()]
    )
    over = _size(direction.values())
    # What merges to nothing needs no size.
    return (_size(summed.values()) / over if over else 1.0) / len(context.tasks)


def _size(tensors: Iterable[torch.Tensor]) -> float:
    return sum(float(tensor.abs().sum()) for tensor in tensors)


def _depths(names: Iterable[str]) -> dict[str, float]:
    """Return l / (L - 1) of each tensor; 0 outside of blocks, and where there is a single one."""
    names = list(names)
    blocks = [layer for layer in layers(names) if re.match(r"block \d|layer\d", layer)]
    share = {layer: at / max(len(blocks) - 1, 1) for at, layer in enumerate(blocks)}
    return {name: share.get(layer_of(name), 0.0) for name in names}


MERGER = Lines()
