"""Interpolated rows: what they depend on, how they are kept, and how they are found again.

An interpolated row has a key of its own, of the merge, lambda, the nodes it was interpolated from,
and the code that does it, so no exact row is ever taken for one. Beside its outcome stands a second
one, under a key that derives from the first: which images are certain, and the bounds of the other
scores. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taskgrid.evaluation.curves.tracing import Traced, trace
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.planner import CurveRef, Plan, Sweep
from taskgrid.evaluation.plan.setting import Request, Weights
from taskgrid.lattice.nodes import CurveSpec, node_levels
from taskgrid.store.outcome import Outcome


@dataclass(frozen=True)
class Interpolated:
    """An interpolated row.

    Attributes:
        outcome: hits, nll and ece as interpolated.
        certainty: bits say which hits are certain; ``nll`` and ``ece`` hold the bounds of these.
    """

    outcome: Outcome
    certainty: Outcome

    @property
    def bound(self) -> float:
        """Bound on the error of accuracy: open hits can be lost, open misses won, not both."""
        return max(self.open_hits, self.open_misses) / self.outcome.n

    @property
    def hopeful(self) -> int:
        """The most images that may be right."""
        return self.outcome.correct + self.open_misses

    @property
    def open_hits(self) -> int:
        """Images that count as hits and may be misses."""
        return int(np.count_nonzero(self.outcome.hits() & ~self.certainty.hits()))

    @property
    def open_misses(self) -> int:
        """Images that count as misses and may be hits."""
        return int(np.count_nonzero(~self.outcome.hits() & ~self.certainty.hits()))


@dataclass(frozen=True)
class SweptCurve:
    """A sweep over lambda of one merge on one image set, as a curve of which few points are measured.

    Attributes:
        plan: the block; its ``curves`` say how.
        sweep: what is asked for; every point has a single lambda.
    """

    plan: Plan
    sweep: Sweep

    @property
    def n(self) -> int:
        """Number of images."""
        return self.plan.setting.task(self.sweep.task).parts[self.sweep.split].n

    @property
    def ref(self) -> CurveRef:
        """How the curve is traced, as rows depend on it."""
        if self.plan.curves is None:
            raise ValueError("this plan has no interpolated curves")
        return self.plan.curves

    @property
    def spec(self) -> CurveSpec:
        """How the curve is traced."""
        return self.ref

    def requests(self) -> Iterator[Request]:
        """Yield every request that may be evaluated: what is asked for, and nodes."""
        levels = node_levels(self.sweep.points, self.spec.nodes)
        for scale in {*self.sweep.points, *(node for level in levels for node in level)}:
            yield self.exact(scale)

    def exact(self, scale: str) -> Request:
        """Return the request for a lambda that is evaluated."""
        return self.plan.merged(self.sweep.subset, scale, self.sweep.task, self.sweep.split)

    def key(self, scale: str, nodes: Sequence[str]) -> str:
        """Return the key of a lambda that is interpolated."""
        merge = self.plan.merge_key(self.sweep.subset)
        point = keys.interpolated_key(merge, scale, nodes, self.ref.code)
        weights = Weights("merge", self.sweep.subset, scale)
        return self.plan.setting.request(weights, point, self.sweep.task, self.sweep.split).key

    def row_keys(self) -> Iterator[str]:
        """Yield every key that the curve may need, of exact and of interpolated rows."""
        for scale in self.sweep.points:
            yield self.exact(scale).key
        for nodes in node_levels(self.sweep.points, self.spec.nodes):
            for scale in self.sweep.points:
                key = self.key(scale, nodes)
                yield from (key, keys.certainty_key(key))


def read_curve(curve: SweptCurve, outcomes: Mapping[str, Outcome]) -> Traced[Interpolated] | None:
    """Return a curve from outcomes by key, or None where one is missing that it needs."""

    def between(nodes: tuple[str, ...], waiting: Sequence[str]) -> dict[str, Interpolated]:
        found = {}
        for scale in waiting:
            key = curve.key(scale, nodes)
            found[scale] = Interpolated(outcomes[key], outcomes[keys.certainty_key(key)])
        return found

    try:
        traced = trace(curve.sweep.points, curve.spec, between)
    except KeyError:
        return None
    known = all(curve.exact(scale).key in outcomes for scale in traced.exact)
    return traced if known else None
