"""Which lambdas of a curve are evaluated, and which are interpolated; no numbers of its own.

The same decision is made twice: while a curve is measured, and when its rows are found again in the
store. It depends on what is asked for and on the bounds of the interpolated rows, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from taskgrid.lattice.nodes import CurveSpec, node_levels
from taskgrid.lattice.points import lambda_value


class Bounded(Protocol):
    """An interpolated row."""

    @property
    def bound(self) -> float:
        """Bound on the error of its accuracy."""


Row = TypeVar("Row", bound=Bounded)

Interpolate = Callable[[tuple[str, ...], Sequence[str]], Mapping[str, Row]]
"""Takes nodes and lambdas, as text, and returns the interpolated rows of these lambdas."""


@dataclass(frozen=True)
class Traced(Generic[Row]):
    """A curve.

    Attributes:
        interpolated: the rows that are interpolated, by lambda.
        exact: the other lambdas that were asked for, increasing.
    """

    interpolated: dict[str, Row]
    exact: tuple[str, ...]


def trace(lambdas: Sequence[str], spec: CurveSpec, interpolate: Interpolate[Row]) -> Traced[Row]:
    """Decide which lambdas are interpolated.

    A lambda whose bound is looser than the tolerance is tried again with nested nodes, as long as the
    new ones are fewer than half of the lambdas that wait. What is left then is evaluated.

    Args:
        lambdas: what is asked for, as text, in any order.
        spec: how.
        interpolate: called once for each set of nodes that is used.
    """
    asked = sorted(set(lambdas), key=lambda_value)
    known: set[str] = set()
    rows: dict[str, Row] = {}
    waiting = asked
    for nodes in node_levels(asked, spec.nodes):
        fresh = sum(node not in known for node in nodes)
        if fresh >= len(waiting) * (0.5 if known else 1.0):
            break
        known.update(nodes)
        waiting = [scale for scale in waiting if scale not in known]
        found = interpolate(nodes, waiting)
        rows |= {scale: found[scale] for scale in waiting if found[scale].bound <= spec.tolerance}
        waiting = [scale for scale in waiting if scale not in rows]
    # A lambda that was good enough may have become a node of the next set: then it is known exactly.
    rows = {scale: row for scale, row in rows.items() if scale not in known}
    return Traced(rows, tuple(scale for scale in asked if scale not in rows))
