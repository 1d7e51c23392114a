"""Zipping: channels of several networks that see the same become one, across networks and within each.

Stoica et al., "ZipIt! Merging Models from Different Tasks without Training" (ICLR 2024), section 4. A zip of
T networks of n channels is a group in 0 ... n-1 for each of their T n channels. M, ``(n, T n)``, averages a
group, and U, ``(T n, n)``, says of each channel where it went: M U = 1. What writes a space is merged by M_t,
what reads it by U_t: W = sum_t M_t W_t U_t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from taskgrid.alignment.matching import match_moments
from taskgrid.alignment.spaces import Pair, Spaces, attention_spaces
from taskgrid.alignment.taps import Moments


def zip_pair(correlation: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Return the groups ``(2 n,)`` of the channels of two networks: n merges of two groups, the best first.

    Groups are as much alike as their least alike channels, times alpha for each merge that they went
    through. A merge of two groups that both hold channels of one network is within it, and each network
    affords beta n / 2 of those; when there are more than n groups, some hold channels of the one network
    alone and some of the other alone, so that there is always another merge.

    The largest entry of each row is kept, so that a merge looks at a few rows of the matrix, and not at all.

    Args:
        correlation: ``(2 n, 2 n)``, of the channels of the one network and then the other.
        alpha: how much a merged group is worth, in [0, 1].
        beta: share of half the channels that may be merged within a network, in [0, 1].

    Returns:
        int64; groups are in the order of their first channels.
    """
    scores = correlation.detach().cpu().double().numpy()
    scores = (scores + scores.T) / 2
    np.fill_diagonal(scores, -np.inf)
    both, count = len(scores), len(scores) // 2
    # Which networks a group has channels of; a group has the place of its first channel.
    holds = np.arange(both)[:, None] // count == np.arange(2)
    left = np.full(2, int(beta * (count // 2) + 1e-4))
    places = np.arange(both)

    def forbid(network: int) -> None:
        scores[np.ix_(holds[:, network], holds[:, network])] = -np.inf

    for network in np.flatnonzero(left == 0).tolist():
        forbid(network)
    partners = scores.argmax(axis=1)
    peaks = scores[places, partners]
    groups = places.copy()
    for _ in range(count):
        # Of equal ones the first in the order of rows, and so the one before the other.
        one = int(peaks.argmax())
        two = int(partners[one])
        row = np.minimum(scores[one], scores[two])
        np.multiply(row, alpha, out=row, where=row > -np.inf)
        row[[one, two]] = -np.inf
        scores[one] = scores[:, one] = row
        scores[two] = scores[:, two] = peaks[two] = -np.inf
        groups[groups == two] = one
        # Who has lost its partner looks for another one; to all others only the merged group can be better.
        stale = np.isin(partners, (one, two))
        within = holds[one] & holds[two]
        holds[one], holds[two] = holds[one] | holds[two], False
        left -= within
        for network in np.flatnonzero(within & (left == 0)).tolist():
            forbid(network)
            stale |= holds[:, network]
        better = (row > peaks) | ((row == peaks) & (one < partners))
        partners[better], peaks[better] = one, row[better]
        rows = np.flatnonzero(stale)
        partners[rows] = scores[rows].argmax(axis=1)
        peaks[rows] = scores[rows, partners[rows]]
    return torch.from_numpy(np.unique(groups, return_inverse=True)[1].astype(np.int64))


def zip_space(seen: Sequence[Moments], size: int, alpha: float, beta: float) -> torch.Tensor:
    """Return the groups ``(T, n)`` of a space that is zipped as a whole.

    Args:
        seen: moments of the channels of T networks, one after another, with themselves, at each place
            where they are seen; correlations are averaged over the places.
        size: n.
        alpha: as for ``zip_pair``.
        beta: as for ``zip_pair``.
    """
    return _zip(seen, _starts(seen[0], size) + torch.arange(size), alpha, beta)


def zip_attention(
    spaces: Spaces, block: int, seen: Mapping[str, Moments], alpha: float, beta: float
) -> dict[str, torch.Tensor]:
    """Return the groups ``(T, n)`` of queries, keys and values of a block.

    Heads change places as wholes, so that each is paired with one of the first network's. Queries and keys
    are renamed together, values are zipped inside the paired heads.

    Args:
        spaces: of each network.
        block: which block.
        seen: space -> moments as for ``zip_space``.
        alpha: as for ``zip_pair``.
        beta: as for ``zip_pair``.
    """
    queries, keys, values = names = attention_spaces(block)
    index = renamed(spaces, {name: [seen[name]] for name in names})
    starts = _starts(seen[values], spaces.sizes[values])
    heads = index[values].chunk(spaces.heads, dim=1)
    parts = [
        _zip([seen[values]], starts + head, alpha, beta) + at * head.shape[1]
        for at, head in enumerate(heads)
    ]
    placed = torch.empty_like(index[values]).scatter_(1, index[values], torch.cat(parts, dim=1))
    turned = index[queries].argsort(dim=1)
    return {queries: turned, keys: turned, values: placed}


def renamed(spaces: Spaces, seen: Mapping[str, Sequence[Moments]]) -> dict[str, torch.Tensor]:
    """Return which channels of T networks go best with those of the first: space -> int64 ``(T, n)``.

    Args:
        spaces: of each network.
        seen: space -> moments as for ``zip_space``.
    """
    found = {space: [torch.arange(spaces.sizes[space])] for space in seen}
    beside = {}
    for space, each in seen.items():
        joint = _mean([one.correlation() for one in each])[: spaces.sizes[space]].cpu()
        beside[space] = joint.chunk(joint.shape[1] // len(joint), dim=1)
    # Of the first with itself nothing is asked: of two channels that are equal, either might be taken.
    for others in zip(*(each[1:] for each in beside.values()), strict=True):
        maps = match_moments(spaces, dict(zip(beside, others, strict=True)))
        for space, index in found.items():
            index.append(maps[space])
    return {space: torch.stack(index) for space, index in found.items()}


def _mean(found: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([*found]).mean(dim=0)


def _starts(seen: Moments, size: int) -> torch.Tensor:
    """Return the first channel of each network, ``(T, 1)``."""
    return torch.arange(0, len(seen.products), size)[:, None]


def _zip(
    seen: Sequence[Moments], channels: torch.Tensor, alpha: float, beta: float
) -> torch.Tensor:
    """Return the groups of channels ``(T, n)`` of T networks.

    The first two are zipped, then their zip, whose channels are the averages of its groups, with the
    third, and so on.
    """
    own = torch.arange(channels.shape[1])
    groups = own[None]
    for place in range(1, len(channels)):
        members = channels[: place + 1].flatten()
        parts = torch.cat([groups.flatten(), len(own) + own])
        found = _mean([averaged(one, members, parts).correlation() for one in seen])
        joined = zip_pair(found, alpha, beta)
        groups = torch.cat([joined[groups], joined[None, len(own) :]])
    return groups


def averaged(moments: Moments, channels: torch.Tensor, groups: torch.Tensor) -> Moments:
    """Return the moments of averages of channels.

    Args:
        moments: of channels with themselves.
        channels: ``(k,)``, the channels that are averaged.
        groups: ``(k,)``, the average that each is in.
    """
    products, means = moments.products, moments.means[0]
    channels, groups = channels.to(products.device), groups.to(products.device)
    shares = 1 / groups.bincount().double()
    products = products[channels][:, channels]
    for _ in range(2):
        sums = products.new_zeros(len(shares), products.shape[1])
        products = (sums.index_add_(0, groups, products) * shares[:, None]).T
    means = torch.zeros_like(shares).index_add_(0, groups, means[channels]) * shares
    squares = products.diagonal()
    return Moments((means, means), (squares, squares), products, moments.count)


def together(groups: torch.Tensor) -> list[Pair]:
    """Return T M_t and U_t for each of T networks: the mean of what they carry is the zip.

    Args:
        groups: ``(T, n)``; those of a permutation make the mean of renamed networks.
    """
    sizes = groups.flatten().bincount(minlength=groups.shape[1])
    shares = len(groups) / sizes.double()
    return [Pair(shares[:, None] * back.T, back) for back in map(_indicator, groups)]


def apart(groups: torch.Tensor) -> list[Pair]:
    """Return what brings each of T networks alone to the channels of the zip, and back: U_t^+ and U_t.

    Without loss for a permutation. Other zips average within the network, and leave channels that it has
    no part in at zero.

    Args:
        groups: ``(T, n)``.
    """
    pairs = []
    for back in map(_indicator, groups):
        sizes = back.sum(dim=0).clamp(min=1)
        pairs.append(Pair(back.T / sizes[:, None], back))
    return pairs


def _indicator(groups: torch.Tensor) -> torch.Tensor:
    return functional.one_hot(groups, len(groups)).double()
