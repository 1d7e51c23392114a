"""What a random sample says about the rest of a finite population.

The audited members are a simple random sample without replacement; then each statement below holds
whatever the population looks like, but for ``rest_mean``, which trusts the normal distribution of
means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over the members that were not audited, with a two-sided interval."""

    mean: float
    low: float
    high: float


def conformal_limit(scores: ArrayLike, level: float) -> float:
    """Return a limit that a random member outside the audit keeps with probability ``level``.

    All members are exchangeable, so the rank of the new score among the audited ones is uniform: the
    ceil((m + 1) level)-th smallest of m scores is the limit (Vovk et al. 2005); infinity where m is
    too small for one.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    place = math.ceil((len(ordered) + 1) * level - 1e-9)
    return float(ordered[place - 1]) if place <= len(ordered) else math.inf


def most_beyond(exceeding: int, audited: int, population: int, confidence: float) -> int:
    """Return how many members outside the audit may exceed a limit, at most, with a confidence.

    It is the largest number that a hypergeometric test does not reject. The limit must have been
    fixed beforehand; one that was read from the audit as its j-th smallest score is covered with
    ``exceeding`` = audited - j (Wilks 1941).

    Args:
        exceeding: audited members beyond the limit.
        audited: audited members.
        population: all members.
        confidence: of the statement.
    """
    low, high = 0, population - audited
    # The chance falls as more are beyond: look for the last number that it does not speak against.
    while low < high:
        middle = (low + high + 1) // 2
        chance = stats.hypergeom.cdf(exceeding, population, exceeding + middle, audited)
        doubted = chance <= 1 - confidence + 1e-9
        low, high = (low, middle - 1) if doubted else (middle, high)
    return low


def rest_mean(values: ArrayLike, population: int, level: float) -> Estimate:
    """Estimate the mean of the members outside the audit from those inside.

    The audit's mean less the rest's has the variance S^2 (1/m + 1/(M - m)), S^2 that of the
    population; Student's t takes the estimate of S^2 into account. Errors are skewed, and t alone
    would miss their mean too often on one side: Hall's transformation corrects for it ("On the
    removal of skewness by transformation", J. R. Stat. Soc. B 54, 1992).

    Args:
        values: of the m audited members, three or more.
        population: all members, M.
        level: coverage.
    """
    seen = np.asarray(values, dtype=np.float64)
    rest = population - len(seen)
    if rest == 0:
        return Estimate(0.0, 0.0, 0.0)
    mean, deviation = float(seen.mean()), float(seen.std(ddof=1))
    if deviation == 0:
        return Estimate(mean, mean, mean)
    width = math.sqrt(1 / len(seen) + 1 / rest)
    skew = float(stats.skew(seen, bias=False))
    quantile = float(stats.t.ppf((1 + level) / 2, len(seen) - 1))

    def end(side: float) -> float:
        away = side * quantile * width
        if abs(skew) > 1e-6:
            # g(t) = t + skew t^2 / 3 + skew^2 t^3 / 27 + skew width^2 / 6 is nearly normal; this undoes it.
            root = np.cbrt(1 + skew * (away - skew * width**2 / 6))
            away = 3 / skew * (float(root) - 1)
        return mean - deviation * away

    return Estimate(mean, end(1.0), end(-1.0))
