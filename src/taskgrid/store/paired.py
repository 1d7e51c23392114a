"""Two models on the same images of several tasks: is the difference of their means more than chance?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taskgrid.store.intervals import Interval, Pair, percentiles, resample

_CLOSE = 1e-12


def mean_difference(pairs: Sequence[Pair]) -> float:
    """Return the mean over tasks of the first model's accuracy minus the second's."""
    return sum((pair.first - pair.second) / pair.n for pair in pairs) / len(pairs)


def mean_difference_interval(
    pairs: Sequence[Pair], *, level: float = 0.95, draws: int = 2000
) -> Interval:
    """Return its percentile-bootstrap interval, each task's images resampled by themselves."""
    total = np.zeros(draws)
    for pair in pairs:
        first, second = resample(pair, draws)
        total += (first - second) / len(pairs)
    return percentiles(total, level)


def difference_p_value(pairs: Sequence[Pair], *, draws: int, seed: int) -> float:
    """Return the two-sided p-value of no difference: McNemar's test, stratified by task.

    If neither model is better, an image that only one of them gets right is as likely the one's as the
    other's. Of each task's such images, m of them, the first model's share is drawn from
    Binomial(m, 1/2), and p is how often the mean difference comes out as large as it is (Phipson and
    Smyth 2010: the data count as one more draw). With one task it tends to McNemar's exact test.

    Args:
        pairs: one per task.
        draws: how many to draw; the smallest p is 1 / (draws + 1).
        seed: of the draws.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    total = np.zeros(draws)
    for pair in pairs:
        differing = pair.first + pair.second
        won = generator.binomial(differing, 0.5, size=draws)
        total += (2 * won - differing) / (pair.n * len(pairs))
    extreme = np.count_nonzero(np.abs(total) >= abs(mean_difference(pairs)) - _CLOSE)
    return float(extreme + 1) / (draws + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scandinavian Journal of Statistics 1979)."""
    adjusted, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = largest
    return adjusted
