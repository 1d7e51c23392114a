"""Foldable supernets: towers side by side, with maps before and behind each of their linear layers.

Where tower i computes W_i x + b_i, the supernet computes, on a stream of a single tower's width,

    sum_i M_i (W_i U_i x + b_i),    M_i = diag(m_i) + P Q_i,    U_i = diag(u_i) + S_i T

U_i makes channels of tower i from those of the stream, M_i makes channels of the stream from what comes of
them. P and T are common to the towers. All else is as in one tower: LayerNorms with gains and shifts of
their own, softmax in heads of the stream, the activation. So the supernet folds into one tower of weights

    W = sum_i M_i W_i U_i,    b = sum_i M_i b_i

exactly, and is run as that tower while it learns, too: its gradient is the same, images pass once instead
of once for each tower, and folding at rank r costs 4 r + 2 multiply-adds per weight and tower. No M_i or
U_i is ever written out for that.

Kinderman et al., "Foldable SuperNets" (TMLR 2025, arXiv 2410.01483).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from taskgrid.errors import LineageError
from taskgrid.models.layout import layer_of, multiplies_right, part_of, projection_of
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State

Start: TypeAlias = Literal["average", "first"]
"""``average``: M_i = I / n, and LayerNorms are means; ``first``: M_1 = I, other M_i = 0, and LayerNorms are
those of tower 1. U_i = I."""


@dataclass(frozen=True, eq=False)
class Maps:
    """A map for each of n towers, ``diag(diagonal[i]) + left[i] @ right[i]``.

    Attributes:
        diagonal: ``(n, d)``.
        left: ``(n, d, r)``, or ``(1, d, r)`` where all have it in common.
        right: ``(n, r, d)``, or ``(1, r, d)``.
    """

    diagonal: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor

    def dense(self) -> torch.Tensor:
        """Return the maps written out, ``(n, d, d)``."""
        return torch.diag_embed(self.diagonal) + self.left @ self.right

    def before(self, weights: torch.Tensor) -> torch.Tensor:
        """Return W_i U_i, ``(n, k, d)`` as the weights are."""
        return weights * self.diagonal.unsqueeze(1) + (weights @ self.left) @ self.right

    def behind(self, weights: torch.Tensor) -> torch.Tensor:
        """Return sum_i M_i W_i, ``(d, k)``, of weights ``(n, d, k)``; ``left`` is common."""
        low = self.left[0] @ (self.right @ weights).sum(dim=0)
        return torch.einsum("nd,ndk->dk", self.diagonal, weights) + low


class Place(NamedTuple):
    """Where a tensor stands among the maps.

    Attributes:
        into: the M of its rows, which are cut into as many equal parts.
        back: the U of its columns; None of a bias, and of what reads pixels.
        rows: the axis of its rows.
    """

    into: tuple[str, ...]
    back: str | None
    rows: int


def place_of(key: str, dims: int) -> Place | None:
    """Return a tensor's place; None of the gains and shifts that a supernet has of its own.

    Args:
        key: its name in an image tower's state.
        dims: how many axes it has.

    Raises:
        LineageError: if it is a matrix of no layer that is known.
    """
    part, kind = part_of(key), projection_of(key)
    if part == "embedding":
        return Place((part,), None, 0 if key.endswith("weight") else dims - 1)
    if part == "projection":
        return Place((part,), part if dims > 1 else None, int(multiplies_right(key)))
    if kind is not None:
        layer, cut = layer_of(key), ("q", "k", "v") if kind == "qkv" else (kind,)
        into = tuple(f"{layer} {one}" for one in cut)
        return Place(into, f"{layer} {kind}" if dims > 1 else None, 0)
    if dims > 1:
        raise LineageError(
            f"a supernet knows the linear layers of vision transformers, and {key!r} is of none of them; "
            "merge towers like this by another method"
        )
    return None


@dataclass(frozen=True, eq=False)
class Supernet:
    """Towers with their maps; only the towers do not learn.

    Attributes:
        towers: key -> the tensor of each, ``(n, ...)``.
        into: layer -> its M, from the towers into the stream.
        back: layer -> its U, from the stream back to the towers.
        free: gains and shifts of LayerNorms and the like, by key.
        output: what makes features of each tower from those of the stream.
    """

    towers: State
    into: Mapping[str, Maps]
    back: Mapping[str, Maps]
    free: State
    output: Maps

    def leaves(self) -> Iterator[torch.Tensor]:
        """Yield all that learns."""
        for maps in (*self.into.values(), *self.back.values(), self.output):
            yield from (maps.diagonal, maps.left, maps.right)
        yield from self.free.values()

    def tower(self, place: int) -> State:
        """Return the weights of one of the towers."""
        return {key: each[place] for key, each in self.towers.items()}

    def double(self) -> Supernet:
        """Return it in float64, detached; the towers stay as they are."""
        return Supernet(
            self.towers,
            {name: _double(maps) for name, maps in self.into.items()},
            {name: _double(maps) for name, maps in self.back.items()},
            {key: one.detach().double() for key, one in self.free.items()},
            _double(self.output),
        )

    def folded(self) -> State:
        """Return the one tower that it is, in the dtype of the maps."""
        return {key: self._folded(key, each) for key, each in self.towers.items()}

    def _folded(self, key: str, each: torch.Tensor) -> torch.Tensor:
        place = place_of(key, each.dim() - 1)
        if place is None:
            return self.free[key]
        wide = each.to(self.output.diagonal.dtype).movedim(1 + place.rows, 1)
        flat = wide.flatten(2) if wide.dim() > 2 else wide.unsqueeze(2)
        if place.back is not None:
            flat = self.back[place.back].before(flat)
        parts = flat.chunk(len(place.into), dim=1)
        rows = [self.into[name].behind(part) for name, part in zip(place.into, parts, strict=True)]
        return torch.cat(rows).reshape(wide.shape[1:]).movedim(0, place.rows)


def supernet(
    states: Sequence[Mapping[str, torch.Tensor]],
    start: Start,
    rank: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Supernet:
    """Return a supernet that folds into the mean of towers, or into the first, exactly.

    Of every product of low rank the common factor of U and the towers' own of M are zero, the others normal
    with the variance 1 / d.

    Args:
        states: the towers, of one architecture.
        start: which of the two.
        rank: r; 0 leaves diagonals.
        seed: what the normal numbers are drawn from.
        dtype: of all that learns.

    Raises:
        LineageError: if they are no vision transformers; names a tensor.
    """
    count, example = len(states), states[0]
    towers = {
        key: torch.stack([state[key] for state in states])
        for key, tensor in example.items()
        if tensor.is_floating_point()
    }
    shares = [1 / count] * count if start == "average" else [1.0] + [0.0] * (count - 1)
    device = next(iter(towers.values())).device
    weights = torch.tensor(shares, dtype=torch.float64, device=device)

    def normal(name: str, *shape: int) -> torch.Tensor:
        random = np.random.default_rng(derive_seed("supernet", seed, name))
        return torch.from_numpy(random.normal(size=shape)).to(device)

    def merging(name: str, size: int) -> Maps:
        left = normal(f"M {name}", 1, size, rank) / size**0.5
        return _learning(weights.unsqueeze(1).expand(-1, size), left, dtype, right=count)

    def parting(name: str, size: int) -> Maps:
        left = normal(f"U {name}", count, size, rank) / size**0.5
        return _learning(torch.ones(count, size, device=device), left, dtype, right=1)

    into, back, free = dict[str, Maps](), dict[str, Maps](), dict[str, torch.Tensor]()
    for key, each in towers.items():
        place = place_of(key, each.dim() - 1)
        if place is None:
            free[key] = _leaf(torch.tensordot(weights, each.double(), 1), dtype)
            continue
        rows = each.shape[1 + place.rows]
        for name in place.into:
            if name not in into:
                into[name] = merging(name, rows // len(place.into))
        if place.back is not None:
            back[place.back] = parting(place.back, each[0].numel() // rows)
    width = into["projection"].diagonal.shape[1]
    return Supernet(towers, into, back, free, parting("output", width))


def _learning(diagonal: torch.Tensor, left: torch.Tensor, dtype: torch.dtype, right: int) -> Maps:
    _, size, rank = left.shape
    zeros = torch.zeros(right, rank, size, device=left.device)
    return Maps(_leaf(diagonal, dtype), _leaf(left, dtype), _leaf(zeros, dtype))


def _leaf(start: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return start.to(dtype, copy=True).contiguous().requires_grad_()


def _double(maps: Maps) -> Maps:
    return Maps(*(one.detach().double() for one in (maps.diagonal, maps.left, maps.right)))
