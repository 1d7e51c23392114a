"""TIES as a computation: trim every vector, elect a sign per weight, combine what agrees.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (NeurIPS 2023), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from taskgrid.merging.seam import Prepared

Trim = Literal["global", "tensor"]
Combine = Literal["mean", "sum", "max"]
ZeroSign = Literal["majority", "positive"]


@dataclass(frozen=True)
class Voter:
    """A task vector that takes part.

    Attributes:
        vector: the vector as it is.
        least: name -> the smallest magnitude that trimming keeps, ``()``; see ``thresholds``.
        factor: what its entries count in the election and in sums.
        weight: what it counts for in a mean.
    """

    vector: Mapping[str, torch.Tensor]
    least: Mapping[str, torch.Tensor]
    factor: float = 1.0
    weight: float = 1.0

    def kept(self, name: str) -> torch.Tensor:
        """Return a tensor in float64, trimmed and multiplied."""
        entries = self.vector[name]
        trimmed = torch.where(entries.abs() >= self.least[name], entries, 0)
        return trimmed.double().mul_(self.factor)


def thresholds(vector: Mapping[str, torch.Tensor], density: float, trim: Trim) -> Prepared:
    """Return for each tensor the magnitude from which on entries are kept.

    Of n entries round(density * n) are kept, at least one, and with the smallest of them all that have
    its magnitude: which of them would be left out is no property of the vector.

    Args:
        vector: a task vector.
        density: share of the entries to keep, in (0, 1].
        trim: the n entries are those of the whole vector, or of each tensor.
    """
    if trim == "tensor":
        return {name: _least(tensor.abs().reshape(-1), density) for name, tensor in vector.items()}
    flat = [tensor.abs().reshape(-1) for tensor in vector.values()]
    least = _least(torch.cat(flat), density)
    return dict.fromkeys(vector, least)


def elect(
    voters: Sequence[Voter], combine: Combine = "mean", zero_sign: ZeroSign = "majority"
) -> Prepared:
    """Return the merged direction in float64.

    Per weight the sign of the sum of all trimmed entries is elected; entries of that sign are combined.

    Args:
        voters: the vectors, at least one, in the order in which they are added.
        combine: their weighted mean, their sum, or the one of largest magnitude.
        zero_sign: the sign where the sum is exactly zero: the majority of the elected ones over the whole
            model (positive where that is a draw), or positive.
    """
    return {
        name: _combined(voters, name, signs, combine)
        for name, signs in _elected(voters, zero_sign).items()
    }


def agreeing(voters: Sequence[Voter], zero_sign: ZeroSign = "majority") -> list[Prepared]:
    """Return of every vector the trimmed entries that have the elected sign, in the vector's dtype."""
    found: list[Prepared] = [{} for _ in voters]
    for name, signs in _elected(voters, zero_sign).items():
        for voter, own in zip(voters, found, strict=True):
            agrees = voter.kept(name) * signs > 0
            own[name] = torch.where(agrees, voter.vector[name], 0)
    return found


def _least(magnitudes: torch.Tensor, density: float) -> torch.Tensor:
    count = len(magnitudes)
    if count == 0:
        return magnitudes.new_zeros(())
    kept = min(max(round(density * count), 1), count)
    return magnitudes.kthvalue(count - kept + 1).values


def _elected(voters: Sequence[Voter], zero_sign: ZeroSign) -> Prepared:
    """Return the elected signs, int8, none of them zero."""
    signs = {name: _signs(voters, name) for name in voters[0].vector}
    otherwise = 1
    if zero_sign == "majority" and sum(int(each.sum()) for each in signs.values()) < 0:
        otherwise = -1
    return {name: torch.where(each == 0, otherwise, each) for name, each in signs.items()}


def _signs(voters: Sequence[Voter], name: str) -> torch.Tensor:
    """Return the signs of the sums, int8."""
    total = voters[0].kept(name)
    for voter in voters[1:]:
        total += voter.kept(name)
    return total.sign().to(torch.int8)


def _combined(
    voters: Sequence[Voter], name: str, signs: torch.Tensor, combine: Combine
) -> torch.Tensor:
    total = torch.zeros(signs.shape, dtype=torch.float64, device=signs.device)
    count = torch.zeros_like(total)
    for voter in voters:
        entries = voter.kept(name)
        agrees = entries * signs > 0
        entries = torch.where(agrees, entries, 0)
        if combine == "max":
            total = torch.where(entries.abs() > total.abs(), entries, total)
        else:
            total += entries
            count += agrees * voter.weight
    return total / torch.where(count > 0, count, 1) if combine == "mean" else total
