"""Measuring lambda curves: evaluates nodes, interpolates between them, evaluates what is too loose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.evaluation.curves.curves import CurveRow, interpolate, odds_against
from taskgrid.evaluation.curves.interpolated import CurveAsk, Interpolated
from taskgrid.evaluation.curves.tracing import trace
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.setting import Request
from taskgrid.models.heads import Head
from taskgrid.store.outcomes import Outcome

Listen = Callable[[Request], tuple[Outcome, NDArray[Any]]]
"""Measures a row and returns its outcome with the logits behind it, (n, C)."""


@dataclass(frozen=True)
class ListeningHead(Head):
    """A head that keeps the logits it gave, so that the kernel that asks for them need not know.

    Attributes:
        batches: the logits of each call, on their device.
    """

    batches: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def beside(cls, head: Head) -> Self:
        """Return a listening twin of a head."""
        return cls(head.weight, head.classes, head.lineage)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, C)`` as the head does, and keep them."""
        found = super().logits(features)
        self.batches.append(found)
        return found

    def heard(self) -> NDArray[Any]:
        """Return all logits ``(n, C)``, brought over from the device once."""
        logits: NDArray[Any] = torch.cat(self.batches).float().cpu().numpy()
        return logits


class Tracer:
    """Traces curves.

    Args:
        listen: measures a row.
    """

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        # The base is a node of every curve that starts at zero: its logits are kept.
        self._base: dict[str, tuple[Outcome, NDArray[Any]]] = {}

    def trace(
        self, ask: CurveAsk, labels: NDArray[np.int64], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        """Yield all outcomes of a curve: of evaluated lambdas, of interpolated ones with certainty.

        Args:
            ask: the curve.
            labels: true classes, (n,).
            advance: told of images as they pass.
        """
        found: dict[str, Outcome] = {}
        odds: dict[str, NDArray[Any]] = {}

        def evaluate(scale: str) -> NDArray[Any]:
            if scale not in odds:
                outcome, logits = self._measured(ask.exact(scale), advance)
                found[outcome.key] = outcome
                odds[scale] = odds_against(logits, labels)
            return odds[scale]

        def between(nodes: tuple[str, ...], waiting: Sequence[str]) -> dict[str, Interpolated]:
            values = np.stack([evaluate(node) for node in nodes])
            rows = {
                row.scale: _stored(row, ask.key(row.scale, nodes))
                for row in interpolate(nodes, values, labels, waiting)
            }
            # Loose ones, too: whoever finds the curve again must see that they were.
            for row in rows.values():
                found[row.outcome.key] = row.outcome
                found[row.certainty.key] = row.certainty
            return rows

        for scale in trace(ask.lambdas, ask.spec, between).exact:
            evaluate(scale)
        yield from found.values()

    def _measured(
        self, request: Request, advance: Callable[[int], None]
    ) -> tuple[Outcome, NDArray[Any]]:
        if request.key in self._base:
            return self._base[request.key]
        answer = self._listen(request)
        advance(request.n)
        if request.weights.kind == "base":
            self._base[request.key] = answer
        return answer


def _stored(row: CurveRow, key: str) -> Interpolated:
    return Interpolated(
        Outcome.of(key, row.hits, row.nll, row.ece),
        Outcome.of(keys.certainty_key(key), row.certain, row.nll_bound, row.ece_bound),
    )
