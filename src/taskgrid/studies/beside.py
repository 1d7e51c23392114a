"""Chosen points beside the base, image by image: what the tables of studies that change one model say.

Both answer the same test images, so their outcomes are paired: what a hard image does to both cancels
in the interval of the difference, and an image whose predicted class differs is a flip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taskgrid.errors import ArtifactError, DataError
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.intervals import Interval, Pair, difference_interval
from taskgrid.store.outcome import Outcome
from taskgrid.studies.rows import RUN
from taskgrid.studies.seam import Results

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
"""Coverage of the intervals."""

_POINT = (*RUN, "subset", "point")


@dataclass(frozen=True)
class Beside:
    """A model and the base on the test images of one task.

    Attributes:
        n: how many images there are.
        base: the base's accuracy.
        accuracy: the model's.
        change: the interval of the second minus the first.
        flips: images whose predicted class differs; None where only correctness is known.
    """

    n: int
    base: float
    accuracy: float
    change: Interval
    flips: int | None


@dataclass(frozen=True)
class ChosenPoint:
    """A point that a study chose.

    Attributes:
        row: its row in ``results/tables/selected.parquet``.
        tests: task -> what the point and the base did on it.
        experts: (expert, task) -> accuracy on test of an expert of the same run as it is.
    """

    row: Mapping[str, Any]
    tests: Mapping[str, Beside]
    experts: Mapping[tuple[str, str], float]

    @property
    def run(self) -> dict[str, Any]:
        """What names its run and method."""
        return {name: self.row[name] for name in RUN}


def chosen_points(results: Results) -> Iterator[ChosenPoint]:
    """Yield a study's own chosen points with their test results, in the order of the table.

    Raises:
        DataError: if the grid lacks a row.
        ArtifactError: if an outcome behind a row is not stored any more.
    """
    test = results.grid[results.grid["split"] == "test"]
    base = {
        (row["model"], row["task"]): row["key"] for row in _rows(test[test["method"] == "zeroshot"])
    }
    merged = {
        (*(row[name] for name in _POINT), row["task"]): row["key"]
        for row in _rows(test[test["role"] == "selected"])
    }
    experts: dict[tuple[Any, ...], dict[tuple[str, str], float]] = {}
    for row in _rows(test[test["method"] == "expert"]):
        run = (row["model"], row["mode"], row["seed"])
        experts.setdefault(run, {})[row["subset"], row["task"]] = row["accuracy"]
    for row in _rows(results.own):
        keys = {
            task: (
                _known(base, (row["model"], task)),
                _known(merged, (*(row[name] for name in _POINT), task)),
            )
            for task in row["tasks"].split("+")
        }
        found = results.find({key for pair in keys.values() for key in pair})
        yield ChosenPoint(
            row,
            {task: _beside(found, *pair) for task, pair in keys.items()},
            experts.get((row["model"], row["mode"], row["seed"]), {}),
        )


def flips_of(tests: Iterable[Beside]) -> int | None:
    """Return how many images flipped in all; None where that is not known of each."""
    flips = [one.flips for one in tests]
    return None if None in flips else sum(flip for flip in flips if flip is not None)


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _known(keys: Mapping[tuple[Any, ...], str], at: tuple[Any, ...]) -> str:
    if at not in keys:
        words = ", ".join(str(part) for part in at)
        raise DataError(
            f"the grid has no test row of {words}; run the eval rule of its block again"
        )
    return keys[at]


def _beside(found: Mapping[str, Outcome], base: str, own: str) -> Beside:
    if base not in found or own not in found:
        raise ArtifactError(
            "outcomes behind chosen points are not in the store any more; delete their rows under "
            "results/eval and run again"
        )
    before, after = found[base], found[own]
    pair = Pair.of(after.hits(), before.hits(), derive_seed("beside", own, base))
    flips = None
    if before.predicted and after.predicted:
        flips = int(np.count_nonzero(before.predictions() != after.predictions()))
    return Beside(
        n=before.n,
        base=before.accuracy,
        accuracy=after.accuracy,
        change=difference_interval(pair, level=LEVEL),
        flips=flips,
    )
