"""Optimal transport between the channels of two networks: plans, and the maps that plans make.

A plan T between n channels of the source and m of the target says how much of each goes where,

    T = argmin <T, C> (- reg * entropy of T),    rows add up to 1/n, columns to 1/m

    M = m T^T    new channels from old ones, what writes them        rows add up to 1
    U = n T      old channels from new ones, for what reads them     rows add up to 1

Of one width, M is the transpose of U, the one T of the papers. Of two, their one T is wrong on one of the
sides: a channel that is doubled must be copied by M and halved by U.

POT is needed for Sinkhorn and for two widths, and imported there only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment

from taskgrid.alignment.spaces import Pair, SpaceMap
from taskgrid.errors import ConfigError, LineageError

_STEPS = 10_000
"""Sinkhorn's, at most."""
_PIVOTS = 100_000_000
"""The network simplex's, at most."""
_REST = 1e-8
"""Where Sinkhorn stops: what marginals may be off by, as a share of them."""
_OFF = 1e-6
"""What the marginals of a plan that is used may be off by."""
_NOTHING = 1e-12
"""The least size of a channel beside another; keeps both sides of a mean in it."""


def plan(cost: torch.Tensor, reg: float | None = None) -> torch.Tensor:
    """Return the plan with the least cost, uniform marginals on both sides.

    Args:
        cost: ``(n, m)`` float64, not negative.
        reg: weight of the entropy, beside costs that are divided by their maximum; None for the exact
            plan, of equal widths a permutation (Birkhoff).

    Returns:
        T ``(n, m)``, float64.

    Raises:
        ConfigError: if the solver does not come to a plan with these marginals; says what to do.
        LineageError: if a cost is not finite.
    """
    if not torch.isfinite(cost).all():
        raise LineageError(
            "channels cannot be compared where weights or activations are not finite; give bases without "
            "NaN and infinity"
        )
    return _exact(cost) if reg is None else _sinkhorn(cost, reg)


def plan_in_heads(
    costs: Sequence[torch.Tensor], heads: tuple[int, int], reg: float | None = None
) -> list[torch.Tensor]:
    """Return plans of spaces that share their heads: heads go to heads as wholes, channels inside them.

    The plan between heads is exact, with the exact cost between the channels of two heads as their
    distance; of equal numbers it is an order of the heads.

    Args:
        costs: ``(n, m)`` for each space, one head after another.
        heads: how many the source and the target have.
        reg: as for ``plan``, inside heads.

    Returns:
        a plan for each space, its blocks the plan between heads times those inside them.
    """
    blocks = [
        cost.reshape(heads[0], len(cost) // heads[0], heads[1], -1).transpose(1, 2)
        for cost in costs
    ]
    between = torch.zeros(heads, dtype=torch.float64)
    for i in range(heads[0]):
        for j in range(heads[1]):
            between[i, j] = sum(float((plan(one[i, j]) * one[i, j]).sum()) for one in blocks)
    whole = plan(between)
    found = [torch.zeros_like(one) for one in blocks]
    for i, j in whole.nonzero().tolist():
        for inside, one in zip(found, blocks, strict=True):
            inside[i, j] = whole[i, j] * plan(one[i, j], reg)
    return [
        inside.transpose(1, 2).reshape(cost.shape)
        for inside, cost in zip(found, costs, strict=True)
    ]


def joined(
    policy: str, skip: torch.Tensor, branch: torch.Tensor, sizes: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return the plan behind an addition, from those of what is added (Imfeld et al., section 4.2).

    Args:
        policy: ``only_resid`` and ``no_resid`` take the one or the other, ``mean`` their mean; with
            ``weighted_scalar`` each counts by its mean size, with ``weighted_matrix`` in each channel of
            the target by its size there.
        skip: plan of the stream before, ``(n, m)``.
        branch: plan of what is added to it, ``(n, m)``.
        sizes: how large the channels of both are in the target, ``(m,)``.
    """
    if policy in ("only_resid", "no_resid"):
        return skip if policy == "only_resid" else branch
    if policy == "mean":
        return (skip + branch) / 2
    before, added = sizes if policy == "weighted_matrix" else (one.mean() for one in sizes)
    share = (before + _NOTHING) / (before + added + 2 * _NOTHING)
    return skip * share + branch * (1 - share)


def as_map(found: torch.Tensor, stretch: float = 1.0) -> SpaceMap:
    """Return the map of a space that a plan makes: an index where the plan is a permutation, else M and U.

    Args:
        found: the plan; where its rows have other sums than 1/n, as mixed ones may, U is n T with rows
            that add up to 1 all the same.
        stretch: factor on new channels, and divisor of what reads them.
    """
    if stretch == 1.0 and found.shape[0] == found.shape[1] == int(found.count_nonzero()):
        return found.argmax(dim=0)
    into = (found / found.sum(dim=0)).T
    return Pair(stretch * into, found / found.sum(dim=1, keepdim=True) / stretch)


def _exact(cost: torch.Tensor) -> torch.Tensor:
    n, m = cost.shape
    if n == m:
        rows, columns = linear_sum_assignment(cost.numpy())
        found = torch.zeros(n, m, dtype=torch.float64)
        found[rows, columns] = 1 / n
        return found
    import ot

    # In whole numbers, so that both sides hold the same and no crumbs are left over.
    whole = math.lcm(n, m)
    masses = [torch.full((size,), whole // size, dtype=torch.float64) for size in (n, m)]
    flow, report = ot.emd(*(one.numpy() for one in (*masses, cost)), numItermax=_PIVOTS, log=True)
    if report["warning"]:
        raise ConfigError(
            f"no exact plan of {n} to {m} channels was found ({report['warning']}); use `solver: sinkhorn`"
        )
    return torch.from_numpy(flow) / whole


def _sinkhorn(cost: torch.Tensor, reg: float) -> torch.Tensor:
    import ot

    marginals = [torch.full((size,), 1 / size, dtype=torch.float64) for size in cost.shape]
    largest = float(cost.max()) or 1.0
    found: torch.Tensor = ot.sinkhorn(
        *marginals,
        cost / largest,
        reg,
        method="sinkhorn_log",
        numItermax=_STEPS,
        stopThr=_REST / max(cost.shape),
        warn=False,
    )
    off = max(
        float((found.sum(dim=axis) * found.shape[1 - axis] - 1).abs().max()) for axis in (0, 1)
    )
    # A plan that is not finite is none either.
    if not off < _OFF:
        raise ConfigError(
            f"Sinkhorn was not at rest after {_STEPS} steps: shares of channels are off by {off:.1g} with "
            f"`reg: {reg:g}`; raise it, or use `solver: exact`"
        )
    return found
