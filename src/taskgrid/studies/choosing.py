"""Choosing on validation: exact on counts, so that a tie is a tie and the first maximum wins.

Means of ratios are compared as fractions. In floating point, two lambdas that are equally good can
differ in the last bit, and which of them wins would depend on the order of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from taskgrid.errors import DataError
from taskgrid.studies.seam import Curves


def best_normalized(curves: Curves, allowed: Sequence[int]) -> int:
    """Return the first index of the largest mean of accuracy relative to the expert's.

    A task whose expert gets nothing right has no normalised accuracy and is left out of the mean;
    when that is so for every task, accuracy itself is compared.

    Args:
        curves: validation results.
        allowed: the indices of points to choose among, increasing.

    Raises:
        DataError: if there is nothing to choose from.
    """
    defined = [at for at, correct in enumerate(curves.expert) if correct]
    over = curves.expert if defined else curves.n
    tasks = defined or range(len(curves.tasks))
    scores = [
        sum((Fraction(int(curves.correct[row, at]), int(over[at])) for at in tasks), Fraction())
        for row in allowed
    ]
    return allowed[first_maximum(scores)]


def first_maximum(scores: Sequence[Fraction]) -> int:
    """Return the index of the largest score; of equal ones, the first.

    Raises:
        DataError: if there are no scores.
    """
    if not scores:
        raise DataError("there are no validation rows to choose lambda from")
    return max(range(len(scores)), key=lambda index: (scores[index], -index))


def edges(allowed: Sequence[int]) -> tuple[int, ...]:
    """Return the first and the last of several indices; a single one is no edge."""
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else ()
