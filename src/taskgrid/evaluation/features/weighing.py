"""Norms of weights and of what moved them, by layer and part. In float64, exact up to rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from taskgrid.models.layout import layer_of, layers, part_of, projection_of

ALL = "all"
"""What the whole network is called among layers and parts."""

_PARTS = {"attention_out": "attention", "mlp_in": "mlp", "mlp_out": "mlp"}


@dataclass(frozen=True)
class Norms:
    """The weights in a part of a layer.

    Attributes:
        layer: the layer, or ``ALL`` of them.
        depth: its place from pixels to features; None for ``ALL``.
        part: ``q``, ``k``, ``v``, ``attention`` (its output), ``mlp``, or what ``layout.part_of`` says.
        norm: of theta.
        norm_base: of theta_0.
        norm_delta: of theta - theta_0.
    """

    layer: str
    depth: int | None
    part: str
    norm: float
    norm_base: float
    norm_delta: float


def weight_norms(
    base: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
) -> list[Norms]:
    """Return the norms of every part of every layer, and of all weights together.

    Args:
        base: theta_0.
        state: theta, with the same keys and shapes.
    """
    moving = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    depths = {layer: depth for depth, layer in enumerate(layers(moving))}
    squares: dict[tuple[str, str], list[torch.Tensor]] = {}
    for key, tensor in moving.items():
        for part, before, after in _split(key, base[key].double(), tensor.double()):
            found = torch.stack([one.square().sum() for one in (after, before, after - before)])
            squares.setdefault((layer_of(key), part), []).append(found)
    summed = {at: torch.stack(found).sum(dim=0) for at, found in squares.items()}
    summed[ALL, ALL] = torch.stack([*summed.values()]).sum(dim=0)
    ordered = sorted(summed, key=lambda at: (depths.get(at[0], len(depths)), at[1]))
    return [
        Norms(layer, depths.get(layer), part, *map(math.sqrt, summed[layer, part].tolist()))
        for layer, part in ordered
    ]


def _split(
    key: str, before: torch.Tensor, after: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield the parts that a tensor belongs to: queries, keys and values share one."""
    projection = projection_of(key)
    if projection == "qkv":
        yield from zip("qkv", before.chunk(3), after.chunk(3), strict=True)
    else:
        yield (_PARTS[projection] if projection else part_of(key)), before, after
