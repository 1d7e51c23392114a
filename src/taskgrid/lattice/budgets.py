"""Budgets: how few merges a lattice takes whose larger subsets are predicted, not measured."""

from __future__ import annotations

import math


def enough_for(level: float) -> int:
    """Return how many members must be audited for a limit that holds with probability ``level``."""
    return math.ceil(level / (1 - level) - 1e-9)


def least_audit(level: float) -> int:
    """Return the smallest random sample by which a predicted lattice can be judged."""
    return max(3, enough_for(level))


def least_budget(tasks: int, larger: int, audit: int) -> int:
    """Return the fewest merges that a lattice on a budget takes: the core, and an audit.

    Args:
        tasks: number of tasks.
        larger: merges of three and more tasks that are asked for; an audit of more evaluates them all.
        audit: merges that are audited.
    """
    return 1 + tasks + math.comb(tasks, 2) + min(audit, larger)
