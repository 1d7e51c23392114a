"""TIES over subsets: four accumulators, to which a task's votes are added one task after the other.

What trimming keeps depends on a task alone, so a subset takes the accumulators of a smaller one. The
election itself is ``election.elect``'s, whose numbers these are up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from taskgrid.merging.bases.election import Combine, ZeroSign
from taskgrid.merging.seam import Prepared


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
