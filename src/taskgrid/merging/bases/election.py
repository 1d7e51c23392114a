"""TIES as a computation: trim every vector, elect a sign per weight, combine what agrees.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (NeurIPS 2023), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from taskgrid.merging.seam import Prepared

Trim = Literal["global", "tensor"]
Combine = Literal["mean", "sum", "max"]
ZeroSign = Literal["majority", "positive"]

_AT_ONCE = 1 << 14
"""Entries of a tensor that are elected at a time: with all voters they stay in a core's cache."""

_SAMPLE = 1 << 13
"""Magnitudes that say where a cut lies."""


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

    Of n entries those are kept that the paper's code keeps, int(density * n) + 1 of the whole vector, and
    mergekit of a tensor, int(density * n) but at least one; and with the smallest of them all that have its
    magnitude: which of them would be left out is no property of the vector.

    Args:
        vector: a task vector.
        density: share of the entries to keep, in (0, 1].
        trim: the n entries are those of the whole vector, or of each tensor.
    """
    if trim == "tensor":
        return {
            name: _least(tensor.abs().reshape(-1), max(int(density * tensor.numel()), 1))
            for name, tensor in vector.items()
        }
    magnitudes = torch.cat([tensor.abs().reshape(-1) for tensor in vector.values()])
    least = _least(magnitudes, int(density * len(magnitudes)) + 1)
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
    found, majority, drawn = {}, 0, []
    for name in voters[0].vector:
        result = _combined(voters, name, 1.0, combine)
        found[name] = result.direction
        majority += result.majority
        drawn += [name] * result.drawn
    if zero_sign == "majority" and majority < 0:
        # Draws are rare, and only what holds one depends on their sign.
        found |= {name: _combined(voters, name, -1.0, combine).direction for name in drawn}
    return found


def agreeing(voters: Sequence[Voter], zero_sign: ZeroSign = "majority") -> list[Prepared]:
    """Return of every vector the trimmed entries that have the elected sign, in the vector's dtype."""
    otherwise = _otherwise(voters, zero_sign)
    found: list[Prepared] = [{} for _ in voters]
    for name in voters[0].vector:
        rows = [voter.vector[name].reshape(-1) for voter in voters]
        own = [torch.empty_like(row) for row in rows]
        for part, kept, signs in _elected(voters, name):
            signs.masked_fill_(signs == 0, otherwise)
            for row, votes, out in zip(rows, kept, own, strict=True):
                out[part] = torch.where(votes * signs > 0, row[part], 0)
        for voter, one, out in zip(voters, found, own, strict=True):
            one[name] = out.view(voter.vector[name].shape)
    return found


def _least(magnitudes: torch.Tensor, kept: int) -> torch.Tensor:
    """Return the ``kept``-th largest; the order of ``magnitudes`` is lost."""
    if len(magnitudes) == 0:
        return magnitudes.new_zeros(())
    place = max(len(magnitudes) - kept, 0)
    if magnitudes.device.type != "cpu":
        return magnitudes.kthvalue(place + 1).values
    return torch.tensor(_selected(magnitudes.numpy(), place))


def _selected(values: NDArray[np.floating], place: int) -> np.floating:
    """Return what sorting would bring to a place.

    A sample says between which values it lies; counting says whether that is so. This takes a tenth of the
    time of torch's selection, which moves indices as well.
    """
    sample = np.sort(values[:: max(len(values) // _SAMPLE, 1)])
    middle, margin = place * len(sample) // len(values), len(sample) // 32 + 1
    low, high = sample[max(middle - margin, 0)], sample[min(middle + margin, len(sample) - 1)]
    below = int(np.count_nonzero(values < low))
    near = values[(values >= low) & (values <= high)]
    if not below <= place < below + len(near):
        below, near = 0, values
    near.partition(place - below)
    found: np.floating = near[place - below]
    return found


def _pieces(voters: Sequence[Voter], name: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield pieces of a tensor, trimmed and multiplied, float64 ``(voters, entries)``, in one buffer."""
    rows = [voter.vector[name].reshape(-1) for voter in voters]
    count = len(rows[0])
    # What shrinking drops is not larger than its bound: here, the next number below what is kept.
    bounds = [
        float(torch.nextafter(voter.least[name], voter.least[name].new_tensor(-1.0)))
        for voter in voters
    ]
    buffer = torch.empty(len(rows), min(_AT_ONCE, count), dtype=torch.float64).to(rows[0].device)
    for start in range(0, count, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, count))
        kept = buffer[:, : part.stop - start]
        for voter, row, bound, out in zip(voters, rows, bounds, kept, strict=True):
            out.copy_(functional.hardshrink(row[part], bound))
            if voter.factor != 1:
                out.mul_(voter.factor)
        yield part, kept


def _otherwise(voters: Sequence[Voter], zero_sign: ZeroSign) -> float:
    """Return the sign where a sum is exactly zero."""
    if zero_sign == "positive":
        return 1.0
    names = voters[0].vector
    more = sum(int(s.sum()) for name in names for _, _, s in _elected(voters, name))
    return -1.0 if more < 0 else 1.0


def _elected(
    voters: Sequence[Voter], name: str
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield pieces as ``_pieces`` does, with the signs of their sums, 0 where these are zero."""
    for part, kept in _pieces(voters, name):
        yield part, kept, kept.sum(dim=0).sign_()


@dataclass(frozen=True)
class _Result:
    """The merged direction of a tensor.

    Attributes:
        direction: the direction, float64.
        majority: elected + less elected -, draws left out.
        drawn: whether entries that are not zero add up to exactly zero anywhere.
    """

    direction: torch.Tensor
    majority: int
    drawn: bool


def _combined(voters: Sequence[Voter], name: str, otherwise: float, combine: Combine) -> _Result:
    first = voters[0].vector[name]
    found = torch.empty(first.shape, dtype=torch.float64, device=first.device)
    weights = torch.tensor([voter.weight for voter in voters], dtype=torch.float64).to(first.device)
    majority, drawn = 0, False
    for part, kept, signs in _elected(voters, name):
        majority += int(signs.sum())
        zero = signs == 0
        signs.masked_fill_(zero, otherwise)
        # What disagrees becomes zero; what agrees, its magnitude.
        kept.mul_(signs).clamp_min_(0)
        total = kept.amax(dim=0) if combine == "max" else kept.sum(dim=0)
        drawn = drawn or bool(total[zero].any())
        if combine == "mean":
            count = weights @ kept.gt_(0)
            total.div_(count.masked_fill_(count == 0, 1))
        torch.mul(total, signs, out=found.view(-1)[part])
    return _Result(found, majority, drawn)
