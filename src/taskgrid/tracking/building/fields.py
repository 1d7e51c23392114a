"""Values as records hold them: texts of settings, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from taskgrid.lattice.points import point_order
from taskgrid.provenance.digests import canonical_json
from taskgrid.tracking.records import Metric


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as text, one entry per leaf: ``{"a": {"b": 1}}`` -> ``a.b = 1``."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else canonical_json(value)
    return found


def finite(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """Return the metrics that were measured."""
    return tuple(metric for metric in metrics if math.isfinite(metric.value))


def number(value: Any) -> float:
    """Return a table's number; what is missing is not a number."""
    return math.nan if value is None or value is pd.NA else float(value)


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of a table's numbers, whatever their order."""
    numbers = [number(value) for value in values]
    return math.fsum(numbers) / len(numbers)


def joined(values: pd.Series[Any]) -> str:
    """Return the distinct values of a column as one text."""
    return ", ".join(str(value) for value in sorted(values.dropna().unique()))


def span(points: Iterable[str]) -> str:
    """Return what a sweep covers, as a person says it."""
    distinct = sorted(set(points), key=point_order)
    if len(distinct) < 2:
        return ", ".join(distinct)
    return f"{distinct[0]} to {distinct[-1]}, {len(distinct)} values"


def percent(value: float) -> str:
    """Return a share as a person writes it: ``77.6 %``."""
    return f"{100 * value:.1f} %"
