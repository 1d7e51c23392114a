"""Which axis of which tensor lives in which space of channels: all that aligners know of the tower.

The channels of a space can be renamed, mixed or merged only if all tensors that write and read it follow:

    res           one for the whole tower: the residual stream
    L.q, L.k, L.v queries, keys and values of block L, one head after another
    L.mlp         hidden units of block L

Pixels, positions, tokens and the features that go to the heads have no space: they stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from taskgrid.alignment.maps import AxisMap
from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard
from taskgrid.models.layout import LAYOUT

RES = "res"
"""The residual stream."""


@dataclass(frozen=True)
class Axis:
    """Where an axis lives.

    Attributes:
        spaces: the spaces along it, in blocks one after another; all but queries, keys and values have one.
        reads: whether the tensor reads the space (its columns) or writes it (its rows).
    """

    spaces: tuple[str, ...]
    reads: bool = False


@dataclass(frozen=True, eq=False)
class Pair:
    """A map of a space by matrices, into a new space of ``m`` channels from one of ``n``.

    Attributes:
        into: M, ``(m, n)``: new channels from old ones; multiplies what writes the space, from the left.
        back: U, ``(n, m)``: old channels from new ones; multiplies what reads the space, from the right.
    """

    into: torch.Tensor
    back: torch.Tensor


SpaceMap: TypeAlias = torch.Tensor | Pair
"""What happens to a space: int64 ``(m,)``, channel i is the old one at index[i]; or matrices."""


@dataclass(frozen=True)
class Spaces:
    """The spaces of a tower.

    Attributes:
        axes: key -> where each axis lives, None for one that is never mapped; all floating tensors.
        sizes: space -> channels.
        heads: number of attention heads in each block.
        blocks: number of transformer blocks.
    """

    axes: Mapping[str, tuple[Axis | None, ...]]
    sizes: Mapping[str, int]
    heads: int
    blocks: int

    def axes_by(self, maps: Mapping[str, SpaceMap]) -> dict[str, tuple[AxisMap, ...]]:
        """Return what maps of spaces do along each axis of each tensor (``maps.Axes``).

        Args:
            maps: space -> its map; a space that is not named stays as it is.

        Raises:
            LineageError: if a map is of a space that there is not, or of another size.
        """
        for space, found in maps.items():
            if space not in self.sizes:
                raise LineageError(f"the tower has no space {space!r} to map")
            if isinstance(found, Pair) and (
                found.into.shape[1] != self.sizes[space]
                or found.back.shape != found.into.shape[::-1]
            ):
                raise LineageError(
                    f"the map of space {space!r} has shapes {tuple(found.into.shape)} and "
                    f"{tuple(found.back.shape)}, but the space has {self.sizes[space]} channels"
                )
        return {
            key: tuple(None if axis is None else self._along(axis, maps) for axis in axes)
            for key, axes in self.axes.items()
        }

    def _along(self, axis: Axis, maps: Mapping[str, SpaceMap]) -> AxisMap:
        found = [maps.get(space) for space in axis.spaces]
        if all(one is None for one in found):
            return None
        sizes = [self.sizes[space] for space in axis.spaces]
        if any(isinstance(one, Pair) for one in found):
            blocks = [_matrix(*each, axis.reads) for each in zip(found, sizes, strict=True)]
            joined: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
            return joined
        indices = [
            (one if isinstance(one, torch.Tensor) else torch.arange(size)) + sum(sizes[:at])
            for at, (one, size) in enumerate(zip(found, sizes, strict=True))
        ]
        return torch.cat(indices)


def _matrix(one: SpaceMap | None, size: int, reads: bool) -> torch.Tensor:
    if isinstance(one, Pair):
        return (one.back.T if reads else one.into).double()
    unit = torch.eye(size, dtype=torch.float64)
    return unit if one is None else unit[one]


def spaces_of(card: ModelCard, shapes: Mapping[str, tuple[int, ...]]) -> Spaces:
    """Return the spaces of a base.

    Args:
        card: its model card: how many heads there are is in no shape.
        shapes: shape of each floating tensor, as in ``Side.end.shapes``.

    Raises:
        LineageError: if it is no vision transformer as open_clip names it; says which tensor is unknown.
    """
    vision = card.tower["vision_cfg"]
    if (
        card.layout != LAYOUT
        or "timm_model_name" in vision
        or not isinstance(vision["layers"], int)
    ):
        raise LineageError(
            f"alignment knows the vision transformers of open_clip; {card.architecture!r} is none, use "
            "aligner `none`"
        )
    return vit_spaces(shapes, int(vision["width"]) // int(vision.get("head_width", 64)))


def vit_spaces(shapes: Mapping[str, tuple[int, ...]], heads: int) -> Spaces:
    """Return the spaces of open_clip's vision transformer.

    Args:
        shapes: shape of each floating tensor.
        heads: number of attention heads.

    Raises:
        LineageError: if a tensor is none of that tower's, or one of its is missing.
    """
    axes, sizes, blocks = {}, {}, set()
    for key, shape in shapes.items():
        block = _BLOCK.match(key)
        layer, name = (block[1], block[2]) if block else ("", key)
        kinds = (_IN_BLOCKS if block else _OUTSIDE).get(name)
        if kinds is None:
            raise LineageError(
                f"alignment knows no tensor {key!r} in a vision transformer; aligner `none` alone takes any"
            )
        if block:
            blocks.add(int(layer))
        axes[key] = tuple(_axis(kind, layer) for kind in kinds)
        for axis, size in zip(axes[key], shape, strict=False):
            for space in () if axis is None else axis.spaces:
                sizes[space] = size // len(axis.spaces) if axis is not None else 0
    if RES not in sizes or blocks != set(range(len(blocks))):
        raise LineageError("the tower lacks tensors of a vision transformer; give a whole base")
    return Spaces(axes, sizes, heads, len(blocks))


def attention_spaces(block: int) -> tuple[str, str, str]:
    """Return the names of the spaces of queries, keys and values."""
    return f"{block}.q", f"{block}.k", f"{block}.v"


def mlp_space(block: int) -> str:
    """Return the name of the space of hidden units."""
    return f"{block}.mlp"


def _axis(kind: str, layer: str) -> Axis | None:
    if not kind:
        return None
    role, _, names = kind.partition(" ")
    spaces = tuple(name if name == RES else f"{layer}.{name}" for name in names.split("+"))
    return Axis(spaces, role == "reads")


_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)$")
_WRITES, _READS = ("writes res",), ("reads res",)
_OUTSIDE: Mapping[str, tuple[str, ...]] = {
    "conv1.weight": _WRITES,
    "class_embedding": _WRITES,
    "positional_embedding": ("", *_WRITES),
    "ln_pre.weight": _WRITES,
    "ln_pre.bias": _WRITES,
    "ln_post.weight": _WRITES,
    "ln_post.bias": _WRITES,
    "proj": _READS,
}
_IN_BLOCKS: Mapping[str, tuple[str, ...]] = {
    "ln_1.weight": _WRITES,
    "ln_1.bias": _WRITES,
    "attn.in_proj_weight": ("writes q+k+v", *_READS),
    "attn.in_proj_bias": ("writes q+k+v",),
    "attn.out_proj.weight": (*_WRITES, "reads v"),
    "attn.out_proj.bias": _WRITES,
    "ls_1.gamma": _WRITES,
    "ln_2.weight": _WRITES,
    "ln_2.bias": _WRITES,
    "mlp.c_fc.weight": ("writes mlp", *_READS),
    "mlp.c_fc.bias": ("writes mlp",),
    "mlp.c_proj.weight": (*_WRITES, "reads mlp"),
    "mlp.c_proj.bias": _WRITES,
    "ls_2.gamma": _WRITES,
}
