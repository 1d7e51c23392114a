"""What a random sample says about the rest of a finite population.

The audited members are a simple random sample without replacement; then each statement below holds
whatever the population looks like, but for ``rest_mean``, which trusts the normal distribution of
means. ``rest_limit`` needs to know how large a single value can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

TELLING = 2
"""So many audited members must differ from the others before their spread says anything."""


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


def rest_limit(values: ArrayLike, population: int, confidence: float, largest: float) -> float:
    """Return what the mean of the members outside the audit does not exceed, with a confidence.

    Valid for any population of values from 0 to ``largest``. Were the values rounded at random to 0 or
    ``largest`` with their sum kept, the audit would hold a hypergeometric number H of large ones;
    exp(-t H) is convex, so its mean is no less than that of the values themselves (Jensen; Hoeffding
    1963 for samples with replacement), and Chernoff's inequality follows: P(sum <= s) <= min over t >= 0
    of exp(t s) E exp(-t H). Of an audit of zeros it says: no more than ``most_beyond`` and one are off.

    Args:
        values: of the audited members, not negative.
        population: all members.
        confidence: of the statement.
        largest: no member outside the audit is larger.
    """
    seen = np.asarray(values, dtype=np.float64)
    audited, rest = len(seen), population - len(seen)
    if rest == 0 or largest <= 0:
        return 0.0
    mass = float(np.minimum(seen / largest, 1.0).sum())
    # The smallest number of large members that the audit speaks against: the sum of all is below it.
    low, high = math.floor(mass + 1e-9), population
    while low + 1 < high:
        middle = (low + high) // 2
        doubted = _chernoff(mass, audited, population, middle) <= 1 - confidence + 1e-9
        low, high = (low, middle) if doubted else (middle, high)
    return largest * min((high - mass) / rest, 1.0)


def _chernoff(mass: float, audited: int, population: int, large: int) -> float:
    """Bound the chance that an audit of a population with so many ones has a sum of ``mass`` or less."""
    counts = np.arange(audited + 1)
    chances = stats.hypergeom.logpmf(counts, population, large, audited)
    # Any t gives a bound, so the best one of a grid does, too.
    tilts = np.geomspace(1e-3, 60.0, 200)
    exponents = chances[None, :] - tilts[:, None] * (counts[None, :] - mass)
    return float(np.exp(special.logsumexp(exponents, axis=1).min()))


def rest_mean(
    values: ArrayLike, population: int, level: float, lowest: float, highest: float
) -> Estimate:
    """Estimate the mean of the members outside the audit from those inside.

    The audit's mean less the rest's has the variance S^2 (1/m + 1/(M - m)), S^2 that of the
    population; Student's t takes the estimate of S^2 into account. Errors are skewed, and t alone
    would miss their mean too often on one side: Hall's transformation corrects for it ("On the
    removal of skewness by transformation", J. R. Stat. Soc. B 54, 1992).

    Of an audit in which fewer than ``TELLING`` members differ from all the others no variance can be
    estimated: there the ends go out to those of ``rest_limit``.

    Args:
        values: of the m audited members, three or more.
        population: all members, M.
        level: coverage.
        lowest: no member outside the audit is smaller.
        highest: no member outside the audit is larger.
    """
    seen = np.asarray(values, dtype=np.float64)
    rest = population - len(seen)
    if rest == 0:
        return Estimate(0.0, 0.0, 0.0)
    low, high = _hall(seen, rest, level)
    if _different(seen) < TELLING:
        width = highest - lowest
        high = max(high, lowest + rest_limit(seen - lowest, population, level, width))
        low = min(low, highest - rest_limit(highest - seen, population, level, width))
    return Estimate(float(seen.mean()), max(low, lowest), min(high, highest))


def _different(seen: Floats) -> int:
    """Return how many values are not the most common one."""
    near = np.isclose(seen[:, None], seen[None, :], rtol=1e-9, atol=1e-12)
    return len(seen) - int(near.sum(axis=1).max())


def _hall(seen: Floats, rest: int, level: float) -> tuple[float, float]:
    mean, deviation = float(seen.mean()), float(seen.std(ddof=1))
    if not _different(seen):
        return mean, mean
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

    return end(1.0), end(-1.0)
