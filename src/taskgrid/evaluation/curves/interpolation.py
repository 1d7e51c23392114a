"""Lambda curves from a few exact points: barycentric interpolation of logits, with a bound.

The logits of an image are a smooth function of lambda, so they are interpolated, one polynomial per
image and class, through exact evaluations at Chebyshev nodes. Accuracy is not: it is counted from
interpolated logits, and an image whose margin is larger than the bound on its logits has a certain
label. What is left over bounds the row.

The bound. Let a_0, ..., a_{N-1} be the coefficients of an image's polynomial in Chebyshev's basis.
The error is sum_j a_{N-1+j} e_j(lambda) over the missing coefficients, where e_j is what the nodes
make of the polynomial T_{N-1+j}, which is known. The missing ones are assumed to go on falling as the
known ones do: |a_{N-1+j}| <= M r^j. The rate r is that of the upper half of the image's known
coefficients, or the 90 % quantile of this over all images where that is larger (a last coefficient
can be small by chance); M is the smallest envelope of that rate above the upper half. A safety factor
of 3 covers what a model of a tail cannot know. Where every second node, left out, shows that it would
take more, that is the factor. So the bound is an estimate, not a theorem; `benchmarks/interpolation.py`
holds it against exact evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Values = NDArray[Any]
"""Values of n images and C classes at N nodes, (N, n, C), float32 or float64."""

SAFETY = 3.0
"""Factor on the estimated error."""

_FEWEST = 3
_EPSILON = float(np.finfo(np.float32).eps)
_CHUNK = 1 << 22
"""Numbers that are expanded to float64 at a time."""

_TAIL = 60
"""Missing coefficients that are summed: 95 % of the whole tail at the largest rate, all of it below."""

_SMALLEST_RATE, _LARGEST_RATE = 0.02, 0.95
_RATE_QUANTILE = 0.9
_HELD_OUT_QUANTILE = 0.99


def barycentric(nodes: ArrayLike, points: ArrayLike) -> Floats:
    """Return the matrix that takes values at the nodes to the interpolant's at the points.

    Second (true) barycentric formula: stable for nodes that gather at the ends (Higham 2004).

    Args:
        nodes: distinct, shape (N,).
        points: shape (P,).

    Returns:
        Shape (P, N); rows sum to 1, and at a node the row is that of the identity.
    """
    xs, at = np.asarray(nodes, dtype=np.float64), np.asarray(points, dtype=np.float64)
    gaps = (xs[:, None] - xs[None, :]) * (4 / (xs.max() - xs.min()))
    np.fill_diagonal(gaps, 1.0)
    away = at[:, None] - xs[None, :]
    hit = away == 0
    terms = 1 / (np.prod(gaps, axis=1) * np.where(hit, 1.0, away))
    matrix: Floats = terms / terms.sum(axis=1, keepdims=True)
    exact = hit.any(axis=1)
    matrix[exact] = hit[exact]
    return matrix


@dataclass(frozen=True)
class Interpolant:
    """Polynomials through values at nodes, one per image and class, and a bound on their error.

    Attributes:
        nodes: where the values are exact, increasing, shape (N,).
        values: the values there, (N, n, C).
        rate: how fast coefficients fall, r, shape (n,).
        tail: the envelope at the last known coefficient, safety included, shape (n,).
        noise: what rounding alone may do, shape (n,).
    """

    nodes: Floats
    values: Values
    rate: Floats
    tail: Floats
    noise: Floats

    @classmethod
    def fit(
        cls,
        nodes: ArrayLike,
        values: Values,
        *,
        safety: float = SAFETY,
    ) -> Interpolant:
        """Interpolate values.

        Args:
            nodes: three or more, increasing, shape (N,).
            values: the values there, (N, n, C); kept, not copied.
            safety: factor on the estimated error.
        """
        xs = np.asarray(nodes, dtype=np.float64)
        if len(xs) < _FEWEST or values.ndim != 3 or len(values) != len(xs):
            raise ValueError(f"{len(xs)} nodes do not fit values of shape {values.shape}")
        # A value that is not a number makes the bound one: nothing is certain then.
        with np.errstate(invalid="ignore", over="ignore"):
            found = _estimate(xs, values)
            if len(xs) % 2 and len(xs) // 2 >= _FEWEST - 1:
                # Every second node left out: what the rest makes of it, and what it was thought to.
                rest = _estimate(xs[::2], values[::2])
                safety = max(safety, rest.shortfall(xs[1::2], values[1::2]))
        return cls(xs, values, found.rate, safety * found.tail, found.noise)

    def at(self, points: ArrayLike, rows: slice = slice(None)) -> Floats:
        """Return the interpolated values of some images, shape (P, n, C), in float64."""
        matrix = barycentric(self.nodes, points)
        return np.tensordot(matrix, self.values[:, rows].astype(np.float64), 1)

    def bound(self, points: ArrayLike, rows: slice = slice(None)) -> Floats:
        """Return the bound on the error of each image's values, whatever the class, shape (P, n)."""
        bound: Floats = self._shape(points, rows) * self.tail[None, rows] + self.noise[None, rows]
        return bound

    def _shape(self, points: ArrayLike, rows: slice = slice(None)) -> Floats:
        """Return sum_j r^j |e_j|, how the bound varies with lambda, shape (P, n); zero at nodes."""
        at = np.asarray(points, dtype=np.float64)
        known, last = len(self.nodes), len(self.nodes) - 1 + _TAIL
        there = chebyshev.chebvander(_to_unit(at, self.nodes), last)[:, known:]
        seen = chebyshev.chebvander(_to_unit(self.nodes, self.nodes), last)[:, known:]
        missed = np.abs(there - barycentric(self.nodes, at) @ seen)
        powers = self.rate[None, rows] ** np.arange(1, _TAIL + 1)[:, None]
        return np.asarray(missed @ powers, dtype=np.float64)

    def shortfall(self, points: Floats, values: Values) -> float:
        """Return the factor that the bound would have needed at points whose values are known.

        It is a quantile over images and points: a single image may be odd by chance.

        Args:
            points: shape (P,).
            values: the exact values there, (P, n, C).
        """
        errors = np.concatenate(
            [
                np.abs(self.at(points, rows) - values[:, rows]).max(axis=2)
                for rows in chunks(self.values)
            ],
            axis=1,
        )
        needed = (errors - self.noise) / (self._shape(points) * self.tail)
        return float(np.quantile(np.nan_to_num(needed, nan=np.inf), _HELD_OUT_QUANTILE))


def chunks(values: Values) -> Iterator[slice]:
    """Yield slices of images whose values in float64 take little memory."""
    nodes, images, classes = values.shape
    step = max(1, _CHUNK // max(1, nodes * classes))
    for start in range(0, images, step):
        yield slice(start, start + step)


def _estimate(nodes: Floats, values: Values) -> Interpolant:
    """Fit with an envelope that has no safety factor on it yet."""
    degree = len(nodes) - 1
    solve = np.linalg.inv(chebyshev.chebvander(_to_unit(nodes, nodes), degree))
    images = values.shape[1]
    # Largest coefficient of each degree, and largest value, over an image's classes.
    sizes, scale = np.empty((degree + 1, images)), np.empty(images)
    for rows in chunks(values):
        part = values[:, rows].astype(np.float64)
        sizes[:, rows] = np.abs(np.tensordot(solve, part, 1)).max(axis=2)
        scale[rows] = np.abs(part).max(axis=(0, 2))
    # Below rounding nothing is known; the tiny number keeps an image of zeros from dividing by zero.
    np.maximum(sizes, 4 * _EPSILON * scale + np.finfo(np.float64).tiny, out=sizes)
    half = degree // 2
    falls = (sizes[degree] / sizes[half]) ** (1 / (degree - half))
    slow = np.maximum(falls, np.quantile(falls, _RATE_QUANTILE))
    rate = np.clip(slow, _SMALLEST_RATE, _LARGEST_RATE)
    upper = np.arange(half + 1, degree + 1)[:, None]
    tail = (sizes[upper[:, 0]] * rate ** (degree - upper)).max(axis=0)
    return Interpolant(nodes, values, rate, tail, 16 * _EPSILON * scale)


def _to_unit(points: Floats, nodes: Floats) -> Floats:
    """Map the range of the nodes to [-1, 1]."""
    low, high = nodes[0], nodes[-1]
    mapped: Floats = (2 * points - (low + high)) / (high - low)
    return mapped
