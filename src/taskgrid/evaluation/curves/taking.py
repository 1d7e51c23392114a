"""Taking sweeps as curves: the nodes of each are measured, most of its other points are interpolated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from taskgrid.evaluation.curves.interpolated import Interpolated, SweptCurve, read_curve
from taskgrid.evaluation.curves.tracer import Tracer
from taskgrid.evaluation.curves.tracing import Traced
from taskgrid.evaluation.engine.listening import Listens
from taskgrid.evaluation.plan.planner import Plan, Sweep
from taskgrid.evaluation.plan.work import Work
from taskgrid.lattice.nodes import node_levels
from taskgrid.lattice.points import point_scale
from taskgrid.store.outcome import Outcome


class Taker:
    """Takes the sweeps of a plan that are worth it; a ``runner.TakeSweeps``.

    Args:
        plan: the block; its ``curves`` say how.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __call__(self, work: Work, sweeps: Sequence[Sweep]) -> Sequence[Sweep]:
        """Bring curves together, from the store or by tracing them; return what is left."""
        curves, left = [], []
        for sweep in sweeps:
            inside, own = self._split(sweep)
            if inside is not None:
                curves.append(SweptCurve(self._plan, inside))
            left += [own] if own.points else []
        needed = {key for curve in curves for key in curve.row_keys()}
        known = work.find(needed - work.outcomes.keys()) | work.outcomes
        missing = []
        for curve in curves:
            traced = read_curve(curve, known)
            if traced is None:
                missing.append(curve)
            else:
                _keep(work, curve, traced, known)
        if missing:
            self._trace(work, missing)
        return left

    def _split(self, sweep: Sweep) -> tuple[Sweep | None, Sweep]:
        """Part a sweep into what lies on a curve, if one is worth it, and what does not."""
        swept = tuple(point for point in sweep.points if point_scale(point) is not None)
        curves = self._plan.curves
        if curves is None or not swept or not node_levels(swept, curves.nodes):
            return None, sweep
        own = tuple(point for point in sweep.points if point not in swept)
        return (
            Sweep(sweep.subset, sweep.task, sweep.split, swept),
            Sweep(sweep.subset, sweep.task, sweep.split, own),
        )

    def _trace(self, work: Work, curves: Sequence[SweptCurve]) -> None:
        images = sum(curve.n * curve.spec.nodes for curve in curves)
        with work.measuring("curves", images) as (engine, advance):
            tracer = Tracer(cast(Listens, engine))
            for curve in curves:
                requests = {request.key: request for request in curve.requests()}
                found = {}
                for outcome in tracer.trace(curve, advance):
                    work.take(requests.get(outcome.key), outcome)
                    found[outcome.key] = outcome
                traced = read_curve(curve, found)
                if traced is None:
                    raise ValueError("a traced curve lacks outcomes of its own")
                _keep(work, curve, traced, found)


def _keep(
    work: Work, curve: SweptCurve, traced: Traced[Interpolated], outcomes: Mapping[str, Outcome]
) -> None:
    for scale in traced.exact:
        key = curve.exact(scale).key
        work.outcomes.setdefault(key, outcomes[key])
    for scale, row in traced.interpolated.items():
        work.estimates[curve.exact(scale).key] = row
