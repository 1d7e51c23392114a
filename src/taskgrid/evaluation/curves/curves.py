"""Whole lambda curves of one merge on one set of images, most of their points interpolated.

Exact evaluations at Chebyshev nodes give every other lambda, each with a bound on its accuracy;
``tracing`` decides which are good enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgrid.evaluation.curves.interpolation import SAFETY, Interpolant, chunks
from taskgrid.evaluation.curves.tracing import trace
from taskgrid.evaluation.engine.measure import expected_calibration_error
from taskgrid.evaluation.engine.odds import CALIBRATION_BINS, odds_against, score_odds
from taskgrid.lattice.nodes import CurveSpec
from taskgrid.lattice.points import lambda_value

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]
Labels = NDArray[np.int64]
LogitsAt = Callable[[str], NDArray[Any]]
"""Evaluates a merge at a lambda, given as text: logits (n, C)."""


@dataclass(frozen=True)
class CurveRow:
    """One lambda.

    Attributes:
        scale: lambda as text.
        hits: whether each image is classified correctly, shape (n,).
        certain: whether that is certain; all are in an exact row.
        nll: mean negative log-likelihood.
        nll_bound: bound on its error.
        ece: expected calibration error.
        ece_bound: bound on its error.
        nodes: lambdas that the row was interpolated from; none in an exact row.
    """

    scale: str
    hits: Hits
    certain: Hits
    nll: float
    nll_bound: float
    ece: float
    ece_bound: float
    nodes: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the row was measured."""
        return not self.nodes

    @property
    def correct(self) -> int:
        """Images classified correctly."""
        return int(np.count_nonzero(self.hits))

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly."""
        return self.correct / len(self.hits)

    @property
    def bound(self) -> float:
        """Bound on the error of accuracy, a multiple of 1/n.

        Uncertain hits can only be lost and uncertain misses only be won, so they do not add up.
        """
        open_hits = int(np.count_nonzero(self.hits & ~self.certain))
        open_misses = int(np.count_nonzero(~self.hits & ~self.certain))
        return max(open_hits, open_misses) / len(self.hits)


@dataclass(frozen=True)
class Curve:
    """A traced curve.

    Attributes:
        rows: one per lambda that was asked for, in increasing order.
        evaluated: the lambdas that were evaluated exactly, nodes and others, in that order.
    """

    rows: tuple[CurveRow, ...]
    evaluated: tuple[str, ...]

    def row(self, scale: str) -> CurveRow:
        """Return the row of a lambda."""
        return next(row for row in self.rows if row.scale == scale)


def trace_curve(
    logits_at: LogitsAt, labels: Labels, lambdas: Sequence[str], spec: CurveSpec | None = None
) -> Curve:
    """Trace a curve, evaluating exactly as few lambdas as the tolerance allows.

    Args:
        logits_at: called once per lambda that is evaluated.
        labels: true classes, shape (n,).
        lambdas: what is asked for, as text, in any order.
        spec: how.
    """
    exact: dict[str, NDArray[Any]] = {}

    def evaluate(scale: str) -> NDArray[Any]:
        if scale not in exact:
            exact[scale] = odds_against(logits_at(scale), labels)
        return exact[scale]

    def between(nodes: tuple[str, ...], waiting: Sequence[str]) -> dict[str, CurveRow]:
        values = np.stack([evaluate(node) for node in nodes])
        return {row.scale: row for row in interpolate(nodes, values, labels, waiting)}

    traced = trace(lambdas, spec or CurveSpec(), between)
    rows = {scale: exact_row(scale, evaluate(scale), labels) for scale in traced.exact}
    rows |= traced.interpolated
    return Curve(tuple(rows[scale] for scale in sorted(rows, key=lambda_value)), tuple(exact))


def interpolate(
    nodes: Sequence[str],
    values: NDArray[Any],
    labels: Labels,
    lambdas: Sequence[str],
    *,
    safety: float = SAFETY,
) -> tuple[CurveRow, ...]:
    """Return the rows of some lambdas.

    Args:
        nodes: lambdas as text, increasing.
        values: ``odds_against`` at the nodes, (N, n, C).
        labels: true classes, shape (n,).
        lambdas: what is asked for, as text, inside the range of the nodes.
        safety: factor on the estimated error.
    """
    if not lambdas:
        return ()
    points = [lambda_value(scale) for scale in lambdas]
    fit = Interpolant.fit([lambda_value(node) for node in nodes], values, safety=safety)
    images = values.shape[1]
    hits, certain = np.zeros((2, len(points), images), dtype=np.bool_)
    nll, bound, confidence = np.zeros((3, len(points), images))
    for rows in chunks(values):
        truth = labels[rows]
        for index, point in enumerate(points):
            odds, bound[index, rows] = fit.at([point], rows)[0], fit.bound([point], rows)[0]
            hits[index, rows], margin, nll[index, rows], confidence[index, rows] = score_odds(
                odds, truth
            )
            # Both signs of a margin inside its bound are possible, and of one that is not a number.
            certain[index, rows] = np.abs(margin) > bound[index, rows]
    return tuple(
        CurveRow(
            scale=scale,
            hits=hits[index],
            certain=certain[index],
            nll=float(nll[index].mean()),
            nll_bound=float(bound[index].mean()),
            ece=expected_calibration_error(hits[index], confidence[index], CALIBRATION_BINS),
            ece_bound=_calibration_bound(certain[index], confidence[index], bound[index]),
            nodes=tuple(nodes),
        )
        for index, scale in enumerate(lambdas)
    )


def exact_row(scale: str, odds: NDArray[Any], labels: Labels) -> CurveRow:
    """Return the row of a lambda that was evaluated."""
    hits, _, nll, confidence = score_odds(odds.astype(np.float64), labels)
    return CurveRow(
        scale=scale,
        hits=hits,
        certain=np.ones_like(hits),
        nll=float(nll.mean()),
        nll_bound=0.0,
        ece=expected_calibration_error(hits, confidence, CALIBRATION_BINS),
        ece_bound=0.0,
    )


def _calibration_bound(certain: Hits, confidence: Floats, bound: Floats) -> float:
    """Bound the calibration error's own error.

    An image contributes (hit - confidence)/n to its bin. Logits that are off by b move a
    log-confidence by 2b at most. An image that may be in another bin can add what it has to one bin
    and take it from another; so can one whose hit is open.
    """
    spread = np.exp(np.minimum(2 * bound, 700.0))
    low, high = confidence / spread, np.minimum(confidence * spread, 1.0)
    same = np.ceil(low * CALIBRATION_BINS) == np.ceil(high * CALIBRATION_BINS)
    moved = np.maximum(high - confidence, confidence - low)
    each = np.where(certain & same, moved, 2.0)
    return float(min(1.0, np.nan_to_num(each, nan=2.0).mean()))
