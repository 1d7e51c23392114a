"""Scores from logits that are at hand: of rows that are derived from others, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]
Labels = NDArray[np.int64]

CALIBRATION_BINS = 15
"""Bins of the calibration error, as in the exact rows."""


def odds_against(logits: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """Return logits less that of the true class, (n, C): nothing depends on more than these."""
    against: NDArray[Any] = logits - logits[np.arange(len(labels)), labels][:, None]
    return against


def score_odds(odds: Floats, labels: Labels) -> tuple[Hits, Floats, Floats, Floats]:
    """Return hits, margins, negative log-likelihoods and confidences of ``odds_against``.

    A hit is what the kernel calls one: the true class comes first among the largest, and no logit of
    the image is not a number. A margin is that of the true class over the others.
    """
    hits = (odds.argmax(axis=1) == labels) & ~np.isnan(odds).any(axis=1)
    highest = odds.max(axis=1)
    nll = highest + np.log(np.exp(odds - highest[:, None]).sum(axis=1))
    others = odds.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    margin: Floats = -others.max(axis=1)
    return hits, margin, nll, np.exp(highest - nll)


def calibration_gaps(hits: Hits, confidence: Floats) -> Floats:
    """Return the sums of hit - confidence over the calibration error's bins."""
    bins = np.ceil(np.nan_to_num(confidence) * CALIBRATION_BINS).astype(np.int64) - 1
    inside = np.clip(bins, 0, CALIBRATION_BINS - 1)
    gaps: Floats = np.zeros(CALIBRATION_BINS)
    gaps += np.bincount(inside, hits - confidence, CALIBRATION_BINS)
    return gaps
