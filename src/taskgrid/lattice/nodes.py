"""Which lambdas of a curve may be evaluated so that the others can be interpolated: Chebyshev nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import format_lambda, lambda_value

_DECIMALS = 6
_FEWEST = 3


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CurveSpec:
    """How a curve over lambda is interpolated: docs/studies/interpolation.md."""

    nodes: Annotated[int, Field(strict=True, ge=5, le=4096)] = 7
    """Coefficients that are evaluated first."""
    tolerance: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.005
    """Loosest bound on accuracy that an interpolated row may have."""


def plan_nodes(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return Chebyshev nodes on [low, high], increasing, rounded to the decimals a lambda can have.

    They hold both ends, and those of ``count`` are among those of ``2 count - 1``.

    Raises:
        ConfigError: if there are fewer than three nodes, or the range is too narrow for them.
    """
    if count < _FEWEST:
        raise ConfigError(f"a curve needs at least {_FEWEST} nodes, not {count}")
    nodes = tuple(
        round(low + (high - low) * _share(index, count - 1), _DECIMALS) for index in range(count)
    )
    if len(set(nodes)) < count:
        raise ConfigError(
            f"{count} nodes between {low} and {high} are closer than {_DECIMALS} decimals can tell; "
            "use fewer nodes"
        )
    return nodes


def node_levels(lambdas: Sequence[str], count: int) -> tuple[tuple[str, ...], ...]:
    """Return the nested sets of nodes that may be used for some lambdas.

    Args:
        lambdas: increasing, as text.
        count: nodes of the first set; each set has one less than twice as many as the one before.
    """
    low, high = lambda_value(lambdas[0]), lambda_value(lambdas[-1])
    levels: list[tuple[str, ...]] = []
    fresh = count
    while low < high and fresh < len(lambdas) * (0.5 if levels else 1.0):
        levels.append(tuple(format_lambda(node) for node in plan_nodes(low, high, count)))
        fresh, count = count - 1, 2 * count - 1
    return tuple(levels)


def _share(numerator: int, denominator: int) -> float:
    """Return (1 - cos(pi p / q)) / 2, the same bits for equal fractions."""
    common = math.gcd(numerator, denominator)
    return (1 - math.cos(math.pi * (numerator // common) / (denominator // common))) / 2
