"""The work on a plan: what is known so far, what is measured now, and the engine once it is needed.

Nothing here imports torch: a plan whose rows are all known is answered without a device. How points
are measured, and in which order, is the engine's business; rows do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.evaluation.plan.setting import Request, Weights
from taskgrid.lattice.subsets import subset_name
from taskgrid.machine.meter import OpenTally, Silent
from taskgrid.machine.timing import Clock, Timing
from taskgrid.store.outcome import Outcome, Outcomes, Takes


class Measures(Protocol):
    """Measures weights on images: an engine."""

    def evaluate(
        self, requests: list[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        """Yield the outcome of every request, in any order; report images as they pass."""
        ...


class Estimate(Protocol):
    """Stands in for a row that is not measured."""

    @property
    def outcome(self) -> Outcome:
        """The estimated outcome, under a key of its own."""

    @property
    def bound(self) -> float:
        """Bound on the error of its accuracy."""

    @property
    def hopeful(self) -> int:
        """The most images that may be right."""


@dataclass(frozen=True)
class Result:
    """The rows of a plan, and what they cost.

    Attributes:
        table: the rows, columns ``rows.GRID``.
        choices: what the studies chose.
        evaluated: rows that were measured now.
        found: rows that were in the store.
        points: distinct weights among the rows that were measured now.
        images: images that passed through the encoder now.
        estimated: rows of the table that are estimates.
        timing: what the job's time went into.
    """

    table: pa.Table
    choices: tuple[Chosen, ...]
    evaluated: int
    found: int
    points: int
    images: int
    estimated: int = 0
    timing: Timing = field(default_factory=Timing)

    def sentence(self) -> str:
        """Say what was done, for a log."""
        return (
            f"evaluated {self.evaluated} rows of {self.points} points ({self.images} images), "
            f"found {self.found}"
            + (f", interpolated {self.estimated}" if self.estimated else "")
            + (f"; {self.timing.sentence()}" if self.evaluated else "")
        )

    def cost(self) -> dict[str, Any]:
        """Return as JSON values what was measured, the time that it took, and the subsets that have rows."""
        subsets = sorted({*self.table["subset"].unique().to_pylist()} - {None, ""})
        return {
            "rows": self.evaluated,
            "images": self.images,
            "subsets": subsets,
            **self.timing.to_json(),
        }


class Work:
    """What is known so far, and the engine once it is needed.

    Args:
        store: where rows are looked up and kept.
        open_engine: called once, and only if a row is missing.
        progress: makes a counter of images from a label and a total.
        clock: of the job; None counts from here.

    Attributes:
        outcomes: measured rows, by the key of their request.
        estimates: rows that stand in for others, by the key of the request that was not measured.
    """

    def __init__(
        self,
        store: Outcomes,
        open_engine: Callable[[], Measures],
        progress: OpenTally | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._clock = clock or Clock()
        self._open_engine = open_engine
        self._progress = progress
        self._engine: Measures | None = None
        self._writer: Takes | None = None
        self._wanted: set[str] = set()
        self._measured: dict[str, Request] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.estimates: dict[str, Estimate] = {}

    @property
    def rows(self) -> dict[str, Outcome]:
        """Outcomes by the key of the request; estimates where there is nothing better."""
        return {key: row.outcome for key, row in self.estimates.items()} | self.outcomes

    @property
    def bounds(self) -> dict[str, float]:
        """Bounds of the estimates that are in use, by their own keys."""
        return {
            row.outcome.key: row.bound
            for key, row in self.estimates.items()
            if key not in self.outcomes
        }

    def correct(self, request: Request, *, hopeful: bool) -> int:
        """Return how many images of a row are right, or may be where hope is allowed."""
        if request.key in self.outcomes:
            return self.outcomes[request.key].correct
        row = self.estimates[request.key]
        return row.hopeful if hopeful else row.outcome.correct

    def fulfil(self, label: str, requests: Iterable[Request]) -> None:
        """Bring outcomes together: from the store, or by measuring them now."""
        wanted = {request.key: request for request in requests if request.key not in self.outcomes}
        self.outcomes |= self.find(wanted)
        missing = [request for key, request in wanted.items() if key not in self.outcomes]
        if not missing:
            return
        with self.measuring(label, sum(request.n for request in missing)) as (engine, advance):
            for outcome in engine.evaluate(missing, advance):
                self.take(wanted[outcome.key], outcome)

    def find(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """Look rows up in the store; they count as wanted."""
        wanted = set(keys)
        self._wanted |= wanted
        return self._store.find(wanted)

    def take(self, request: Request | None, outcome: Outcome) -> None:
        """Keep an outcome that was measured just now; of none, what belongs to an estimate."""
        merge = request is not None and request.weights.kind == "merge"
        self._clock.lap(_name_of(request.weights) if request is not None and merge else "")
        if request is None:
            self._keep(outcome)
        elif outcome.key not in self.outcomes:
            # Measured elsewhere in this block already: kept as it was.
            self._keep(outcome)
            self.outcomes[outcome.key] = outcome
            self._measured[outcome.key] = request

    @contextmanager
    def measuring(
        self, label: str, images: int
    ) -> Iterator[tuple[Measures, Callable[[int], None]]]:
        """Open the engine, a counter and the store; what is taken meanwhile is kept."""
        self._engine = self._engine or self._open_engine()
        tally = self._progress(label, images) if self._progress else Silent()
        with self._store.writer() as writer, tally as count:
            self._writer = writer
            self._clock.begin()
            yield self._engine, count.advance
        self._writer = None

    def result(self, table: pa.Table, choices: Iterable[Chosen] = ()) -> Result:
        """Return the rows, with what they cost."""
        return Result(
            table=table,
            choices=tuple(choices),
            evaluated=len(self._measured),
            found=len(self._wanted & self.outcomes.keys() - self._measured.keys()),
            points=len({request.weights for request in self._measured.values()}),
            images=sum(request.n for request in self._measured.values()),
            estimated=len(self.bounds),
            timing=self._clock.timing(),
        )

    def _keep(self, outcome: Outcome) -> None:
        if self._writer is None:
            raise RuntimeError("outcomes are taken while something is being measured")
        self._writer.add(outcome)


def _name_of(weights: Weights) -> str:
    return subset_name(weights.subset)
