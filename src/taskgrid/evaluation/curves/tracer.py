"""Measuring lambda curves: evaluates nodes, interpolates between them, evaluates what is too loose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgrid.evaluation.curves.curves import CurveRow, interpolate
from taskgrid.evaluation.curves.interpolated import Interpolated, SweptCurve
from taskgrid.evaluation.curves.tracing import trace
from taskgrid.evaluation.engine.listening import Listens
from taskgrid.evaluation.engine.odds import odds_against
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.setting import Request
from taskgrid.store.outcome import Outcome


class Tracer:
    """Traces curves.

    Args:
        engine: measures rows.
    """

    def __init__(self, engine: Listens) -> None:
        self._engine = engine
        # The base is a node of every curve that starts at zero: its logits are kept.
        self._base: dict[str, tuple[Outcome, NDArray[Any]]] = {}

    def trace(self, curve: SweptCurve, advance: Callable[[int], None]) -> Iterator[Outcome]:
        """Yield all outcomes of a curve: of evaluated lambdas, of interpolated ones with certainty.

        Args:
            curve: the curve.
            advance: told of images as they pass.
        """
        labels = self._engine.labels(curve.sweep.task, curve.sweep.split)
        found: dict[str, Outcome] = {}
        odds: dict[str, NDArray[Any]] = {}

        def evaluate(scale: str) -> NDArray[Any]:
            if scale not in odds:
                outcome, logits = self._measured(curve.exact(scale), advance)
                found[outcome.key] = outcome
                odds[scale] = odds_against(logits, labels)
            return odds[scale]

        def between(nodes: tuple[str, ...], waiting: Sequence[str]) -> dict[str, Interpolated]:
            values = np.stack([evaluate(node) for node in nodes])
            rows = {
                row.scale: _stored(row, curve.key(row.scale, nodes))
                for row in interpolate(nodes, values, labels, waiting)
            }
            # Loose ones, too: whoever finds the curve again must see that they were.
            for row in rows.values():
                found[row.outcome.key] = row.outcome
                found[row.certainty.key] = row.certainty
            return rows

        for scale in trace(curve.sweep.points, curve.spec, between).exact:
            evaluate(scale)
        yield from found.values()

    def _measured(
        self, request: Request, advance: Callable[[int], None]
    ) -> tuple[Outcome, NDArray[Any]]:
        if request.key in self._base:
            return self._base[request.key]
        answer = self._engine.listen(request)
        advance(request.n)
        if request.weights.kind == "base":
            self._base[request.key] = answer
        return answer


def _stored(row: CurveRow, key: str) -> Interpolated:
    return Interpolated(
        Outcome.of(key, row.hits, row.nll, row.ece),
        Outcome.of(keys.certainty_key(key), row.certain, row.nll_bound, row.ece_bound),
    )
