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

from taskgrid.evaluation.curves.tracing import CurveSpec, Traced, trace
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.evaluation.plan.setting import Request, Split
from taskgrid.lattice.nodes import node_levels
from taskgrid.store.outcomes import Outcome


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
    def open_hits(self) -> int:
        """Images that count as hits and may be misses."""
        return int(np.count_nonzero(self.outcome.hits() & ~self.certainty.hits()))

    @property
    def open_misses(self) -> int:
        """Images that count as misses and may be hits."""
        return int(np.count_nonzero(~self.outcome.hits() & ~self.certainty.hits()))


@dataclass(frozen=True)
class CurveAsk:
    """A sweep over lambda of one merge on one image set.

    Attributes:
        plan: the block.
        subset: the merged tasks.
        task: whose images and head.
        split: which of its images.
        lambdas: what is asked for, as text, increasing.
    """

    plan: Plan
    subset: tuple[str, ...]
    task: str
    split: Split
    lambdas: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of images."""
        return self.plan.setting.task(self.task).parts[self.split].n

    @property
    def spec(self) -> CurveSpec:
        """How the curve is traced."""
        if self.plan.curves is None:
            raise ValueError("this plan has no interpolated curves")
        return CurveSpec(self.plan.curves.nodes, self.plan.curves.tolerance)

    @property
    def is_curve(self) -> bool:
        """Whether some of its points may be interpolated, and not all are evaluated anyway."""
        return self.plan.curves is not None and bool(node_levels(self.lambdas, self.spec.nodes))

    def requests(self) -> Iterator[Request]:
        """Yield every request that may be evaluated: what is asked for, and nodes."""
        nodes = [node for level in node_levels(self.lambdas, self.spec.nodes) for node in level]
        for scale in {*self.lambdas, *nodes}:
            yield self.exact(scale)

    def exact(self, scale: str) -> Request:
        """Return the request for a lambda that is evaluated."""
        return self.plan.merged(self.subset, scale, self.task, self.split)

    def key(self, scale: str, nodes: Sequence[str]) -> str:
        """Return the key of a lambda that is interpolated."""
        return self.plan.interpolated(self.subset, scale, self.task, self.split, nodes).key

    def row_keys(self) -> Iterator[str]:
        """Yield every key that the curve may need, of exact and of interpolated rows."""
        for scale in self.lambdas:
            yield self.exact(scale).key
        for nodes in node_levels(self.lambdas, self.spec.nodes):
            for scale in self.lambdas:
                key = self.key(scale, nodes)
                yield from (key, keys.certainty_key(key))


def read_curve(ask: CurveAsk, outcomes: Mapping[str, Outcome]) -> Traced[Interpolated] | None:
    """Return a curve from outcomes by key, or None where one is missing that it needs."""

    def between(nodes: tuple[str, ...], waiting: Sequence[str]) -> dict[str, Interpolated]:
        found = {}
        for scale in waiting:
            key = ask.key(scale, nodes)
            found[scale] = Interpolated(outcomes[key], outcomes[keys.certainty_key(key)])
        return found

    try:
        traced = trace(ask.lambdas, ask.spec, between)
    except KeyError:
        return None
    known = all(ask.exact(scale).key in outcomes for scale in traced.exact)
    return traced if known else None
