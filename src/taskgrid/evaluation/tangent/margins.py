"""By how much images of tangent models are classified right, for every coefficient of every task.

But for a positive factor that all classes share, the logits of an image at coefficients c are affine in
c, so it is classified right where every rival k of its class y keeps below it:

    g_k(c) = (w_y - w_k) f_0 + sum_t c_t (w_y - w_k) J tau_t  >= 0

(> 0 where k comes before y, for of equal logits the first wins). Within a box of coefficients most
rivals never decide: those that stay below all through it, and those that stay below another rival.
What is left answers every point of the box exactly, with no model and no image at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskgrid.evaluation.tangent.peaks import Lines

Floats = NDArray[np.float64]

_ROUNDING = 1e-12
"""What an affine function may be off, of the sum of its terms' sizes: a rival within that is kept."""

_CHUNK_NUMBERS = 1 << 22
"""Margins that are held at once, beside those of the whole image set."""

START = "start"
"""The column of g_k at c = 0; the columns behind it are its derivatives, each by its task's name."""

_HEAD = (
    pa.field("task", pa.string(), nullable=False),
    pa.field("image", pa.int32(), nullable=False),
    pa.field("right", pa.bool_()),
    pa.field("rival", pa.int32()),
    pa.field("ties", pa.bool_()),
    pa.field("low", pa.float64(), nullable=False),
    pa.field("high", pa.float64(), nullable=False),
    pa.field(START, pa.float64()),
)
"""A row is a rival that decides about an image; of an image that is decided all through the box,
``right`` says how, and the rest is null. ``ties`` tells whether it is right where the margin is 0."""


@dataclass(frozen=True)
class Deciding:
    """The rivals of one image that decide within a box.

    Attributes:
        right: whether the image is right all through the box; None where that depends.
        rivals: their classes, (R,); empty where ``right`` is known.
        margins: g at c = 0 and its derivatives, (R, 1 + T).
    """

    right: bool | None
    rivals: NDArray[np.int64]
    margins: Floats


def deciding(
    start: Floats, slopes: Floats, labels: NDArray[np.int64], low: float, high: float
) -> Iterator[Deciding]:
    """Yield what decides about each image while every coefficient stays between ``low`` and ``high``.

    Args:
        start: logits at c = 0, ``(n, C)``; any positive factor per image will do.
        slopes: their derivatives by the T coefficients, ``(n, C, T)``, with the same factor.
        labels: true classes, ``(n,)``.
        low: lower end of the box, of all coefficients.
        high: its upper end.
    """
    logits = np.concatenate([start[:, :, None], slopes], axis=2)
    size = max(1, _CHUNK_NUMBERS // max(1, logits[0].size)) if len(logits) else 1
    for first in range(0, len(labels), size):
        some = slice(first, first + size)
        rows, truth = np.arange(len(labels[some])), labels[some]
        margins = logits[some][rows, truth][:, None, :] - logits[some]
        least, most = _extremes(margins, low, high)
        finite = np.isfinite(logits[some]).all(axis=(1, 2))
        for image in rows:
            rival = np.arange(margins.shape[1]) != truth[image]
            if not finite[image] or (most[image][rival] < 0).any():
                yield _decided(False, margins)
                continue
            close = np.flatnonzero(rival & (least[image] <= 0))
            if not len(close):
                yield _decided(True, margins)
                continue
            kept = close[~_behind(margins[image][close], low, high)]
            yield Deciding(None, kept, margins[image][kept])


def _decided(right: bool, margins: Floats) -> Deciding:
    return Deciding(right, np.empty(0, np.int64), np.empty((0, margins.shape[2])))


def _extremes(affine: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """Return a number below the least value of affine functions in the box, and one above their largest.

    Args:
        affine: constants and derivatives, ``(..., 1 + T)``.
        low: lower end of the box.
        high: upper end.
    """
    ends = np.stack([affine[..., 1:] * low, affine[..., 1:] * high])
    slack = _ROUNDING * (np.abs(affine[..., 0]) + np.abs(ends).max(axis=0).sum(axis=-1))
    least = affine[..., 0] + ends.min(axis=0).sum(axis=-1) - slack
    most = affine[..., 0] + ends.max(axis=0).sum(axis=-1) + slack
    return least, most


def _behind(margins: Floats, low: float, high: float) -> NDArray[np.bool_]:
    """Return which rivals stay behind another one all through the box, and so never decide."""
    least, _ = _extremes(margins[:, None, :] - margins[None, :, :], low, high)
    return np.asarray((least > 0).any(axis=1), dtype=np.bool_)


def margins_table(
    lines: Lines, tasks: Sequence[str], moving: Sequence[str], low: float, high: float
) -> pa.Table:
    """Return what decides about the validation images of tasks, for sums of task vectors.

    Validation alone: who drags a coefficient about chooses, and test is read for chosen points only.

    Args:
        lines: the engine that measures a sum of task vectors, each with weight 1.
        tasks: whose images and heads.
        moving: the tasks that have a vector.
        low: lower end of all coefficients.
        high: upper end.
    """
    schema = pa.schema([*_HEAD, *(pa.field(f"by {name}", pa.float64()) for name in moving)])
    tables = [
        pa.table(_columns(task, lines, moving, low, high), schema=schema) for task in sorted(tasks)
    ]
    return pa.concat_tables([schema.empty_table(), *tables])


def _columns(
    task: str, lines: Lines, moving: Sequence[str], low: float, high: float
) -> Mapping[str, Any]:
    along = [lines.line((name,), task, "val") for name in moving]
    labels = along[0].labels.cpu().numpy()
    found = list(
        deciding(
            along[0].start.cpu().numpy(),
            np.stack([line.slope.cpu().numpy() for line in along], axis=2),
            labels,
            low,
            high,
        )
    )
    # A decided image has a row as well, without a rival.
    rows = [max(1, len(one.rivals)) for one in found]
    of_rows = np.repeat(np.arange(len(found)), rows)
    known = [one.right for one in found]
    some = np.array([one.right is None for one in found], dtype=np.bool_)[of_rows]
    values = np.full((len(of_rows), 1 + len(moving)), np.nan)
    rivals = np.zeros(len(of_rows), dtype=np.int64)
    if some.any():
        values[some] = np.concatenate([one.margins for one in found])
        rivals[some] = np.concatenate([one.rivals for one in found])
    return {
        "task": [task] * len(of_rows),
        "image": of_rows.astype(np.int32),
        "right": pa.array([known[image] for image in of_rows], pa.bool_()),
        "rival": pa.array(rivals, pa.int32(), mask=~some),
        "ties": pa.array(rivals > labels[of_rows], pa.bool_(), mask=~some),
        "low": np.full(len(of_rows), low),
        "high": np.full(len(of_rows), high),
        **{
            name: pa.array(values[:, at], pa.float64(), mask=~some)
            for at, name in enumerate((START, *(f"by {name}" for name in moving)))
        },
    }
