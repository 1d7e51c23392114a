"""TIES as a computation: trim every vector, elect a sign per weight, combine what agrees.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (NeurIPS 2023), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Return the merged direction in float64, one tensor after the other.

    Per weight the sign of the sum of all trimmed entries is elected; entries of that sign are combined.

    Args:
        voters: the vectors, at least one, in the order in which they are added.
        combine: their weighted mean, their sum, or the one of largest magnitude.
        zero_sign: the sign where the sum is exactly zero: the majority of the elected ones over the whole
            model (positive where that is a draw), or positive.
    """
    names = voters[0].vector
    return outcome(((name, _counted(voters, name, combine)) for name in names), combine, zero_sign)


def agreeing(voters: Sequence[Voter], zero_sign: ZeroSign = "majority") -> list[Prepared]:
    """Return of every vector the trimmed entries that have the elected sign, in the vector's dtype."""
    signs: Prepared = {}
    for name in voters[0].vector:
        total = _counted(voters, name, "sum")
        signs[name] = (total["up"] + total["down"]).sign().to(torch.int8)
    otherwise = 1
    if zero_sign == "majority" and sum(int(each.sum()) for each in signs.values()) < 0:
        otherwise = -1
    found: list[Prepared] = [{} for _ in voters]
    for name, each in signs.items():
        elected = torch.where(each == 0, otherwise, each)
        for voter, own in zip(voters, found, strict=True):
            own[name] = torch.where(voter.kept(name) * elected > 0, voter.vector[name], 0)
    return found


def votes(entries: torch.Tensor, weight: torch.Tensor, combine: Combine) -> Prepared:
    """Return one voter's part of the four accumulators of a tensor, two where sums are all that is asked.

    ``up`` and ``down`` are sums of its positive and its negative entries; beside them ``for_up`` and
    ``for_down`` count who has which sign, or ``most_up`` and ``most_down`` are the entries of largest
    magnitude.

    Args:
        entries: float64, trimmed and multiplied.
        weight: what the voter counts for.
        combine: as for ``elect``.
    """
    found = {"up": entries.clamp(min=0), "down": entries.clamp(max=0)}
    if combine == "mean":
        weight = weight.to(entries.device)
        found |= {"for_up": (entries > 0) * weight, "for_down": (entries < 0) * weight}
    elif combine == "max":
        found |= {"most_up": found["up"].clone(), "most_down": found["down"].clone()}
    return found


def taken_in(total: Prepared, more: Prepared, *, reuse: bool) -> Prepared:
    """Return accumulators with the votes of one more voter; ``total`` is written over if it may be."""
    return {
        what: _JOINS.get(what, torch.add)(total[what], part, out=total[what] if reuse else None)
        for what, part in more.items()
    }


def outcome(
    counted: Iterable[tuple[str, Prepared]], combine: Combine, zero_sign: ZeroSign
) -> Prepared:
    """Return the direction that accumulators stand for.

    Args:
        counted: name -> its accumulators, one after the other.
        combine: as for ``elect``.
        zero_sign: as for ``elect``.
    """
    direction: Prepared = {}
    drawn: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    balance = 0
    for name, total in counted:
        mass = total["up"] + total["down"]
        direction[name] = _combined(total, mass >= 0, combine)
        if zero_sign == "majority":
            balance += int(mass.sign().sum())
            places = (mass == 0) & (total["up"] != 0)
            if places.any():
                there = {what: part[places] for what, part in total.items()}
                drawn[name] = places, _combined(there, torch.zeros_like(there["up"]) > 0, combine)
    if balance < 0:
        for name, (places, falling) in drawn.items():
            direction[name][places] = falling
    return direction


def _least(magnitudes: torch.Tensor, density: float) -> torch.Tensor:
    count = len(magnitudes)
    if count == 0:
        return magnitudes.new_zeros(())
    kept = min(max(round(density * count), 1), count)
    return magnitudes.kthvalue(count - kept + 1).values


def _counted(voters: Sequence[Voter], name: str, combine: Combine) -> Prepared:
    """Return the accumulators of a tensor, one voter after the other."""
    # Small where each counts for one.
    whole = all(voter.weight == 1 for voter in voters)
    dtype = torch.int16 if whole else torch.float64
    total: Prepared = {}
    for voter in voters:
        own = votes(voter.kept(name), torch.tensor(voter.weight, dtype=dtype), combine)
        total = taken_in(total, own, reuse=True) if total else own
    return total


def _combined(total: Prepared, rises: torch.Tensor, combine: Combine) -> torch.Tensor:
    if combine == "max":
        return torch.where(rises, total["most_up"], total["most_down"])
    found = torch.where(rises, total["up"], total["down"])
    if combine == "sum":
        return found
    count = torch.where(rises, total["for_up"], total["for_down"])
    return found / torch.where(count > 0, count, 1)


_JOINS: Mapping[str, Callable[..., torch.Tensor]] = {
    "most_up": torch.maximum,
    "most_down": torch.minimum,
}
"""How accumulators take one more in, where they do not add."""
