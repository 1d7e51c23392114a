"""What two sets of logits differ in, by exact fractions: an oracle."""

from __future__ import annotations

from fractions import Fraction
from typing import Any


def brute_force(exact: Any, reduced: Any, labels: Any) -> dict[str, Any]:
    """Count and measure with exact fractions, one number at a time."""
    first = [[Fraction(float(v)) for v in row] for row in exact]
    second = [[Fraction(float(v)) for v in row] for row in reduced]
    gaps = [
        [abs(a - b) for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)
    ]
    classes = [[row.index(max(row)) for row in side] for side in (first, second)]
    rights = [[c == t for c, t in zip(side, labels, strict=True)] for side in classes]
    return {
        "largest": float(max(max(row) for row in gaps)),
        "mean": float(sum(sum(row) / len(row) for row in gaps) / len(gaps)),
        "correct": sum(rights[0]),
        "correct_reduced": sum(rights[1]),
        "changed": [i for i, (a, b) in enumerate(zip(*classes, strict=True)) if a != b],
    }
