"""Budgets: how few merges a lattice takes whose larger subsets are predicted, not measured."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from taskgrid.lattice.designs import Count, Natural


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BudgetSpec:
    """How much of a lattice is evaluated."""

    budget: Count
    """Merges that are evaluated: the base, all tasks and pairs, and at least the audit."""
    audit: Count = 20
    """Merges of the budget that are a random sample of what would only be predicted."""
    level: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.95
    """How often bounds and intervals hold."""
    seed: Natural = 0
    """Seed of the sample."""


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
