"""The kernel: weights and images in, outcome out. A row's key holds the digest of this code.

Only what changes a number belongs here. How points are walked, and where weights and images come
from, is in ``engine``; an edit there re-evaluates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.errors import DataError
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import Pixels, iter_logits
from taskgrid.store.outcome import Outcome

_BINS = 15


@dataclass(frozen=True)
class Scores:
    """What a model said about every image of a set, each of shape (n,).

    Attributes:
        hits: whether the class with the largest logit is the true one; a logit that is not a number
            never is.
        nll: negative log-likelihood of the true class, natural logarithm.
        confidence: probability of the class with the largest logit.
        predicted: the class with the largest logit.
    """

    hits: NDArray[np.bool_]
    nll: NDArray[np.float64]
    confidence: NDArray[np.float64]
    predicted: NDArray[np.integer[Any]]

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood."""
        return float(self.nll.mean())

    def outcome(self, key: str) -> Outcome:
        """Return the outcome of a row."""
        return Outcome.of(key, self.hits, self.mean_nll, self.calibration_error, self.predicted)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over 15 bins of equal width (Guo et al., ICML 2017, eq. 3)."""
        return expected_calibration_error(self.hits, self.confidence)


def score(
    encoder: ImageEncoder,
    head: Head,
    pixels: Pixels,
    labels: torch.Tensor,
    *,
    batch_size: int,
    precision: str,
) -> Scores:
    """Classify every image once.

    Results stay on the device until the last image has passed: one copy per call, none per batch.

    Args:
        encoder: the image encoder.
        head: the task's head, on the encoder's device.
        pixels: ``(n, S, S, 3)`` uint8.
        labels: true classes, ``(n,)`` int64 on the encoder's device.
        batch_size: images per forward pass.
        precision: ``fp32`` or ``bf16``.

    Raises:
        DataError: if there are not as many images as labels, or not all of them passed.
    """
    count, device = len(labels), labels.device
    # Rows: hit, nll, confidence, class. float32 holds whole numbers up to 2^24 exactly.
    columns = torch.empty(4, count, dtype=torch.float32, device=device)
    start = 0
    with torch.inference_mode():
        for logits in iter_logits(
            encoder, head, pixels, batch_size=batch_size, device=device, precision=precision
        ):
            stop = start + len(logits)
            columns[:, start:stop] = judge(logits, labels[start:stop])
            start = stop
    if start != count:
        raise DataError(
            f"{start} of {count} images passed in batches of {batch_size}; give as many images as labels, "
            "and batches of one image or more"
        )
    return scores_of(columns)


def judge(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return what logits say, ``(4, B)`` float32: hit, negative log-likelihood, confidence, class.

    Args:
        logits: ``(B, C)``.
        labels: true classes, ``(B,)`` int64.
    """
    log_odds = torch.log_softmax(logits, dim=1)
    best, guess = log_odds.max(dim=1)
    hits = (guess == labels) & ~best.isnan()
    nll = -log_odds.gather(1, labels[:, None])[:, 0]
    return torch.stack([hits.float(), nll.float(), best.exp().float(), guess.float()])


def scores_of(columns: torch.Tensor) -> Scores:
    """Return the columns of ``judge``, brought over from the device once, as scores."""
    hits, nll, confidence, predicted = columns.cpu().numpy()
    return Scores(
        hits > 0.5,
        nll.astype(np.float64),
        confidence.astype(np.float64),
        predicted.astype(np.int64),
    )


def expected_calibration_error(
    hits: NDArray[np.bool_], confidence: NDArray[np.float64], bins: int = _BINS
) -> float:
    """Return the mean gap between accuracy and confidence over bins of equal width.

    Bin m holds confidences in ((m - 1)/M, m/M] and counts by its share of the samples.

    Args:
        hits: whether each prediction is right, shape (n,).
        confidence: probability given to each prediction, shape (n,).
        bins: number M of bins.

    Returns:
        The error, NaN when a confidence is not a number.
    """
    if np.isnan(confidence).any():
        return float("nan")
    # Not np.clip, which takes as long as all the rest where images are few and points are many.
    above = np.minimum(np.maximum(np.ceil(confidence * bins), 1), bins).astype(np.int64)
    gaps = np.bincount(above, weights=hits - confidence, minlength=bins + 1)
    return float(np.abs(gaps).sum() / len(hits))
