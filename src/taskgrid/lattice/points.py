"""Points on the lattice: scaling coefficients as text, which is what keys, paths and tables hold."""

from __future__ import annotations

import math
from decimal import Decimal

from taskgrid.errors import ConfigError

_MIN_DECIMALS = 2
_MAX_DECIMALS = 6


def format_lambda(value: float | Decimal | str) -> str:
    """Print a scaling coefficient as fixed decimals: ``0.3`` is ``"0.30"``, ``0.125`` is itself.

    The text depends on the value alone, never on its neighbours in a sweep: it can be a key.

    Raises:
        ConfigError: if the value is not finite or needs more than six decimals.
    """
    if not math.isfinite(float(value)):
        raise ConfigError(f"lambda {value} is not a finite number")
    # repr gives the shortest decimal that round-trips; 15 digits absorb 0.1 * 3 = 0.30000000000000004.
    number = value if isinstance(value, Decimal) else Decimal(format(float(value), ".15g"))
    rounded = round(number, _MAX_DECIMALS)
    if abs(rounded - number) > Decimal("1e-12"):
        raise ConfigError(
            f"lambda {value} needs more than {_MAX_DECIMALS} decimals; round it in the configuration"
        )
    text = f"{rounded + 0:.{_MAX_DECIMALS}f}"
    whole, decimals = text.lstrip("-").split(".")
    decimals = decimals.rstrip("0").ljust(_MIN_DECIMALS, "0")
    sign = "-" if rounded < 0 else ""
    return f"{sign}{whole}.{decimals}"


def lambda_value(text: str) -> float:
    """Return the number that ``format_lambda`` printed."""
    return float(text)
