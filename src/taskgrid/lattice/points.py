"""Points on the lattice: scaling coefficients as text, which is what keys, paths and tables hold.

``0.30`` is lambda for every task of a subset; ``a:0.30,b:-0.50`` names a coefficient for each. Where all
named ones are equal the short form is the point's only text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from itertools import product

from taskgrid.errors import ConfigError

_MIN_DECIMALS = 2
MOST_DECIMALS = 6
LARGEST = 1_000_000
"""Fifteen digits, of which a float is sure, hold six decimals of no larger number."""


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of a point.

    Attributes:
        text: how the point is spelt.
        scale: the one coefficient of all tasks; None where each has its own.
        named: task -> coefficient, sorted; empty where there is a single one.
    """

    text: str
    scale: float | None
    named: Mapping[str, float] = field(default_factory=dict)

    def of(self, task: str) -> float:
        """Return a task's coefficient."""
        return self.named[task] if self.scale is None else self.scale

    @property
    def lambda_value(self) -> float:
        """What a method's *apply* takes: lambda, or 1 where the vectors themselves are weighted."""
        return 1.0 if self.scale is None else self.scale

    @property
    def order(self) -> tuple[float, str]:
        """What points of one merge are sorted by: lambda, points with named coefficients last."""
        return (math.inf if self.scale is None else self.scale, self.text)


@lru_cache(maxsize=65_536)
def read_point(text: str) -> Coefficients:
    """Read the text of a point.

    Raises:
        ConfigError: if it is none, or not in its canonical spelling; the text says which is.
    """
    if ":" not in text:
        spelt = format_lambda(_number(text, text))
        found = Coefficients(spelt, float(spelt))
    else:
        named = {}
        for part in text.split(","):
            task, _, number = part.partition(":")
            if not task or task in named:
                raise ConfigError(f"{text!r} is no point; write a:0.30,b:-0.50, each task once")
            named[task] = _number(number, text)
        found = _of_named(named)
    if found.text != text:
        raise ConfigError(f"the point {text!r} is called {found.text!r}; ask for that instead")
    return found


def point_text(coefficients: float | Decimal | str | Mapping[str, float]) -> str:
    """Return the text of a point: of one coefficient, or of one for each task.

    Raises:
        ConfigError: if a coefficient is not finite or needs more than six decimals.

    Examples:
        >>> point_text(0.3), point_text({"b": -0.5, "a": 0.3}), point_text({"a": 0.3, "b": 0.3})
        ('0.30', 'a:0.30,b:-0.50', '0.30')
    """
    if isinstance(coefficients, Mapping):
        return _of_named(coefficients).text
    return format_lambda(coefficients)


def point_product(values: Mapping[str, Iterable[float]]) -> tuple[str, ...]:
    """Return the points of a product grid: every combination of the tasks' own coefficients.

    Args:
        values: task -> its coefficients.
    """
    tasks = sorted(values)
    grid = product(*([*values[task]] for task in tasks))
    texts = [point_text(dict(zip(tasks, one, strict=True))) for one in grid]
    return tuple(sorted(dict.fromkeys(texts), key=lambda text: read_point(text).order))


def point_order(text: str) -> tuple[float, str]:
    """Return what points of one merge are sorted by."""
    return read_point(text).order


def point_scale(text: str) -> float | None:
    """Return the number of a point as people query it; None where tasks have their own."""
    return read_point(text).scale


def lambda_value(text: str) -> float:
    """Return the number that ``format_lambda`` printed."""
    return float(text)


def format_lambda(value: float | Decimal | str) -> str:
    """Print a scaling coefficient as fixed decimals: ``0.3`` is ``"0.30"``, ``0.125`` is itself.

    The text depends on the value alone, never on its neighbours in a sweep: it can be a key.

    Raises:
        ConfigError: if the value is not finite, is beyond a million or needs more than six decimals.
    """
    if not math.isfinite(float(value)):
        raise ConfigError(f"lambda {value} is not a finite number")
    if abs(float(value)) > LARGEST:
        raise ConfigError(f"lambda {float(value):g} is larger than {LARGEST}; give a smaller one")
    # repr gives the shortest decimal that round-trips; 15 digits absorb 0.1 * 3 = 0.30000000000000004.
    number = value if isinstance(value, Decimal) else Decimal(format(float(value), ".15g"))
    rounded = round(number, MOST_DECIMALS)
    if rounded != number:
        raise ConfigError(
            f"lambda {float(value)!r} needs more than {MOST_DECIMALS} decimals; round it in the configuration"
        )
    text = f"{rounded + 0:.{MOST_DECIMALS}f}"
    whole, decimals = text.lstrip("-").split(".")
    decimals = decimals.rstrip("0").ljust(_MIN_DECIMALS, "0")
    sign = "-" if rounded < 0 else ""
    return f"{sign}{whole}.{decimals}"


def _of_named(named: Mapping[str, float]) -> Coefficients:
    texts = {task: format_lambda(named[task]) for task in sorted(named)}
    if not texts:
        raise ConfigError("a point needs a coefficient for at least one task")
    if len(set(texts.values())) == 1:
        (text,) = set(texts.values())
        return Coefficients(text, float(text))
    text = ",".join(f"{task}:{number}" for task, number in texts.items())
    return Coefficients(text, None, {task: float(number) for task, number in texts.items()})


def _number(text: str, point: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{point!r} is no point: {text!r} is not a number") from None
