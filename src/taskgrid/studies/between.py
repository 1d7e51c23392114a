"""Models between two experts, image by image: how far they are from the line between the experts' scores.

All three answer the same images, so their outcomes are resampled together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taskgrid.errors import ArtifactError, DataError
from taskgrid.lattice.subsets import parse_subset
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.intervals import percentiles
from taskgrid.store.outcome import Outcome
from taskgrid.studies.beside import LEVEL
from taskgrid.studies.rows import RUN
from taskgrid.studies.seam import Results

_DRAWS = 2000
_POINT = (*RUN, "subset", "point", "task", "split")


def on_line(t: Decimal, first: Fraction, second: Fraction) -> Fraction:
    """Return (1 - t) ``first`` + t ``second``."""
    share = Fraction(t)
    return (1 - share) * first + share * second


@dataclass(frozen=True)
class Between:
    """Two experts and a model between them, on the same images of one task.

    Attributes:
        first: what the expert at t = 0 did.
        second: what the expert at t = 1 did.
        model: what the model did.
    """

    first: Outcome
    second: Outcome
    model: Outcome

    @property
    def _three(self) -> tuple[Outcome, Outcome, Outcome]:
        return self.first, self.second, self.model

    def excess(self, t: Decimal) -> Fraction:
        """Return how much less accurate the model is than the line between the experts at t."""
        first, second, model = (Fraction(one.correct, one.n) for one in self._three)
        return on_line(t, first, second) - model

    def loss_excess(self, t: Decimal) -> float:
        """Return how much larger the model's mean loss is than the line between the experts' at t."""
        return self.model.nll - float(1 - t) * self.first.nll - float(t) * self.second.nll

    def resampled(self, t: Decimal) -> NDArray[np.float64]:
        """Return ``excess`` of bootstrap samples of the images, shape (draws,)."""
        kinds, worth = np.zeros(self.model.n, dtype=np.int64), np.zeros(8)
        # Eight kinds of images, by who is right.
        for bit, (weight, one) in enumerate(
            zip((float(1 - t), float(t), -1.0), self._three, strict=True)
        ):
            kinds |= one.hits().astype(np.int64) << bit
            worth += weight * (np.arange(8) >> bit & 1)
        seed = derive_seed("between", *(one.key for one in self._three))
        generator = np.random.Generator(np.random.PCG64(seed))
        shares = np.bincount(kinds, minlength=8) / self.model.n
        drawn = generator.multinomial(self.model.n, shares, size=_DRAWS)
        # t has six decimals; what lies beyond is rounding, and would be an interval of equal models.
        return np.asarray(drawn @ worth.round(9) / self.model.n)


class Measured:
    """What a finished grid holds of experts and of models between them.

    Args:
        results: the grid, and where its outcomes are found.
    """

    def __init__(self, results: Results) -> None:
        self._find = results.find
        rows = results.grid[results.grid["method"] != "zeroshot"]
        columns = [rows[name].tolist() for name in _POINT]
        self._keys = dict(zip(zip(*columns, strict=True), rows["key"], strict=True))

    def scores(
        self, chosen: Mapping[str, Any], point: str, t: Decimal, split: str
    ) -> dict[str, Any]:
        """Return what a point of a path did beside the experts: means over the two tasks.

        Args:
            chosen: the columns that name run, method and subset.
            point: the point.
            t: its place, from the expert of the subset's first task to that of its second.
            split: on whose images.

        Raises:
            DataError: if the grid lacks a row.
            ArtifactError: if an outcome is not stored any more.
        """
        tasks = [self._between(chosen, point, task, split) for task in _tasks(chosen)]
        drawn = np.mean([one.resampled(t) for one in tasks], axis=0)
        interval = percentiles(drawn, LEVEL)
        return {
            "n": sum(one.model.n for one in tasks),
            "first": fmean(one.first.accuracy for one in tasks),
            "second": fmean(one.second.accuracy for one in tasks),
            "accuracy": fmean(one.model.accuracy for one in tasks),
            "nll": fmean(one.model.nll for one in tasks),
            "excess": float(sum(one.excess(t) for one in tasks) / len(tasks)),
            "low": interval.low,
            "high": interval.high,
            "level": LEVEL,
            "loss_excess": fmean(one.loss_excess(t) for one in tasks),
        }

    def _between(self, chosen: Mapping[str, Any], point: str, task: str, split: str) -> Between:
        run = [chosen[name] for name in RUN]
        ends = [(*run[:3], "expert", "{}", end, "1.00", task, split) for end in _tasks(chosen)]
        keys = [self._key(at) for at in (*ends, (*run, chosen["subset"], point, task, split))]
        found = self._find(keys)
        if not found.keys() >= {*keys}:
            raise ArtifactError(
                f"outcomes of {chosen['subset']} at {point} are not in the store any more; delete their rows "
                "under results/eval and run again"
            )
        return Between(*(found[key] for key in keys))

    def _key(self, at: tuple[Any, ...]) -> str:
        if at not in self._keys:
            raise DataError(
                f"the grid has no row of {', '.join(map(str, at))}; run the eval rule of its block again"
            )
        return str(self._keys[at])


def _tasks(chosen: Mapping[str, Any]) -> tuple[str, ...]:
    return parse_subset(chosen["subset"])
