"""Running a plan: find what is stored, measure what is missing, choose, measure the choice on test.

Nothing here imports torch: a plan whose rows are all known is answered without a device. How points
are measured, and in which order, is the bench's business; rows do not depend on it.

Where curves are interpolated, the chosen point is measured all the same, on validation too. The
choice is made with every open image counted as a hit, and again as long as it falls on an interpolated
point; so for a study that prefers more hits it is the choice of the grid that is measured throughout,
as far as bounds hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskgrid.evaluation.curves.interpolated import CurveAsk, Interpolated, read_curve
from taskgrid.evaluation.curves.tracing import Traced
from taskgrid.evaluation.plan.planner import SPLITS, Plan, Request, Setting, Split, Weights
from taskgrid.evaluation.plan.rows import Line, Role, grid_table
from taskgrid.lattice.points import lambda_value
from taskgrid.lattice.subsets import parse_subset, subset_name
from taskgrid.machine.timing import Clock, Timing
from taskgrid.store.outcomes import Outcome
from taskgrid.studies.seam import Choice, Counts, Curves, Study


class Counter(Protocol):
    """Something that counts images, e.g. ``progress.Progress``."""

    def advance(self, count: int = 1) -> None:
        """Report ``count`` more images as done."""


class Bench(Protocol):
    """Measures weights on images."""

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        """Yield the outcome of every request, in any order; report images as they pass."""
        ...


class CurveBench(Bench, Protocol):
    """Measures whole lambda curves, too."""

    def trace(self, ask: CurveAsk, advance: Callable[[int], None]) -> Iterator[Outcome]:
        """Yield every outcome of a curve, measured ones and interpolated ones with certainty."""
        ...


class ListeningBench(Protocol):
    """Measures rows and hands out the logits behind them: ``engine.Engine``."""

    def listen(self, request: Request) -> tuple[Outcome, NDArray[Any]]:
        """Return a row's outcome and its logits, (n, C)."""
        ...

    def labels(self, task: str, split: Split) -> NDArray[np.int64]:
        """Return the true classes of an image set."""
        ...

    @property
    def machine(self) -> Mapping[str, str | int]:
        """What moves the last bits of a logit, beside what it is of."""
        ...


class Writer(Protocol):
    """Takes outcomes; what it was given is kept when its block ends."""

    def add(self, outcome: Outcome) -> None:
        """Take one outcome."""


class Store(Protocol):
    """Where outcomes are found again: ``store.outcomes.OutcomeStore``, or one in memory."""

    def find(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """Return the outcomes that are stored, by key."""
        ...

    def writer(self) -> AbstractContextManager[Writer]:
        """Return a context manager that stores outcomes."""
        ...


OpenBench = Callable[[], Bench]
OpenCounter = Callable[[str, int], AbstractContextManager[Counter]]


@dataclass(frozen=True)
class Result:
    """The rows of a plan, and what they cost.

    Attributes:
        table: the rows, columns ``rows.GRID``.
        evaluated: rows that were measured now.
        found: rows that were in the store.
        points: distinct weights among the rows that were measured now.
        images: images that passed through the encoder now.
        interpolated: rows of the table that are interpolated.
        timing: what the job's time went into.
    """

    table: pa.Table
    evaluated: int
    found: int
    points: int
    images: int
    interpolated: int = 0
    timing: Timing = field(default_factory=Timing)

    def sentence(self) -> str:
        """Say what was done, for a log."""
        return (
            f"evaluated {self.evaluated} rows of {self.points} points ({self.images} images), "
            f"found {self.found}"
            + (f", interpolated {self.interpolated}" if self.interpolated else "")
            + (f"; {self.timing.sentence()}" if self.evaluated else "")
        )

    def cost(self) -> dict[str, Any]:
        """Return as JSON values what was measured, and the time that it took."""
        return {"rows": self.evaluated, "images": self.images, **self.timing.to_json()}


def run_plan(
    plan: Plan,
    store: Store,
    open_bench: OpenBench,
    studies: Sequence[Study],
    progress: OpenCounter | None = None,
    clock: Clock | None = None,
) -> Result:
    """Bring all rows of a plan together.

    Args:
        plan: the block.
        store: where rows are looked up and kept.
        open_bench: called once, and only if a row is missing.
        studies: the studies the plan names.
        progress: makes a counter of images from a label and a total.
        clock: of the job; None counts from here.
    """
    work = _Work(store, open_bench, progress, clock)
    asks = [
        (subset, study)
        for subset in map(parse_subset, plan.subsets)
        for study in studies
        if study.covers(subset)
    ]
    sweeps = _sweeps(plan, asks)
    curves = [ask for ask in sweeps if ask.is_curve]
    points = [ask.exact(scale) for ask in sweeps if not ask.is_curve for scale in ask.lambdas]
    work.fulfil("validation", [*_references(plan, asks), *points])
    work.trace("curves", curves)
    choices = _choices(plan, asks, work)
    chosen = [
        (subset, choices[subset, study.name].scale, _tested(plan, subset, study))
        for subset, study in asks
    ]
    work.fulfil(
        "test",
        [
            plan.merged(subset, scale, task, "test")
            for subset, scale, tasks in chosen
            for task in tasks
        ],
    )
    lines = _lines(plan, asks, choices)
    return work.result(grid_table(plan.setting, lines, work.rows, work.bounds))


def run_reference(
    setting: Setting,
    store: Store,
    open_bench: OpenBench,
    progress: OpenCounter | None = None,
    clock: Clock | None = None,
) -> Result:
    """Bring the reference rows together: the base and every expert on every task, val and test."""
    work = _Work(store, open_bench, progress, clock)
    lines = [
        Line(setting.zeroshot(task, split), "zeroshot", {}, (), "0.00", "reference")
        for task in setting.tasks
        for split in SPLITS
    ]
    lines += [
        Line(setting.expert(expert, task, split), "expert", {}, (expert,), "1.00", "reference")
        for expert in setting.experts
        for task in setting.tasks
        for split in SPLITS
    ]
    work.fulfil("reference", [line.request for line in lines])
    return work.result(grid_table(setting, lines, work.outcomes))


class _Work:
    """What is known so far, and the bench once it is needed."""

    def __init__(
        self,
        store: Store,
        open_bench: OpenBench,
        progress: OpenCounter | None,
        clock: Clock | None,
    ) -> None:
        self._store = store
        self._clock = clock or Clock()
        self._open_bench = open_bench
        self._progress = progress
        self._bench: Bench | None = None
        self._wanted: set[str] = set()
        self._measured: dict[str, Request] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.interpolated: dict[str, Interpolated] = {}

    @property
    def rows(self) -> dict[str, Outcome]:
        """Outcomes by the key of the request; interpolated ones where there is nothing better."""
        return {key: row.outcome for key, row in self.interpolated.items()} | self.outcomes

    @property
    def bounds(self) -> dict[str, float]:
        """Bounds of the interpolated rows that are in use, by their own keys."""
        return {
            row.outcome.key: row.bound
            for key, row in self.interpolated.items()
            if key not in self.outcomes
        }

    def fulfil(self, label: str, requests: Iterable[Request]) -> None:
        wanted = {request.key: request for request in requests if request.key not in self.outcomes}
        self._wanted |= wanted.keys()
        self.outcomes |= self._store.find(wanted)
        missing = [request for key, request in wanted.items() if key not in self.outcomes]
        if not missing:
            return
        with self._measuring(label, sum(request.n for request in missing)) as (bench, add, advance):
            for outcome in bench.evaluate(missing, advance):
                self._clock.lap(_merge_of(wanted[outcome.key].weights))
                add(outcome)
                self.outcomes[outcome.key] = outcome
        self._measured |= {request.key: request for request in missing}

    def trace(self, label: str, asks: Sequence[CurveAsk]) -> None:
        needed = {key for ask in asks for key in ask.row_keys()}
        known = self._store.find(needed - self.outcomes.keys()) | self.outcomes
        missing = []
        for ask in asks:
            traced = read_curve(ask, known)
            if traced is None:
                missing.append(ask)
            else:
                self._take(ask, traced, known)
        if not missing:
            return
        images = sum(ask.n * ask.spec.nodes for ask in missing)
        with self._measuring(label, images) as (bench, add, advance):
            for ask in missing:
                requests = {request.key: request for request in ask.requests()}
                found = {}
                for outcome in cast(CurveBench, bench).trace(ask, advance):
                    self._clock.lap(subset_name(ask.subset))
                    found[outcome.key] = outcome
                    # Measured elsewhere in this block already: kept as it was.
                    if outcome.key not in self.outcomes:
                        add(outcome)
                        if outcome.key in requests:
                            self._measured[outcome.key] = requests[outcome.key]
                traced = read_curve(ask, found)
                if traced is None:
                    raise ValueError("a traced curve lacks outcomes of its own")
                self._take(ask, traced, found)

    def _take(
        self, ask: CurveAsk, traced: Traced[Interpolated], outcomes: Mapping[str, Outcome]
    ) -> None:
        for scale in traced.exact:
            key = ask.exact(scale).key
            self._wanted.add(key)
            self.outcomes.setdefault(key, outcomes[key])
        for scale, row in traced.interpolated.items():
            self.interpolated[ask.exact(scale).key] = row

    @contextmanager
    def _measuring(
        self, label: str, images: int
    ) -> Iterator[tuple[Bench, Callable[[Outcome], None], Callable[[int], None]]]:
        self._bench = self._bench or self._open_bench()
        counter = self._progress(label, images) if self._progress else nullcontext(SilentCounter())
        with self._store.writer() as writer, counter as count:
            self._clock.begin()
            yield self._bench, writer.add, count.advance

    def result(self, table: pa.Table) -> Result:
        return Result(
            table=table,
            evaluated=len(self._measured),
            found=len(self._wanted - self._measured.keys()),
            points=len({request.weights for request in self._measured.values()}),
            images=sum(request.n for request in self._measured.values()),
            interpolated=len(self.bounds),
            timing=self._clock.timing(),
        )


def _merge_of(weights: Weights) -> str:
    return subset_name(weights.subset) if weights.kind == "merge" else ""


class SilentCounter:
    """Counts for nobody."""

    def advance(self, count: int = 1) -> None:
        """Say nothing."""


Asks = Sequence[tuple[tuple[str, ...], Study]]


def _references(plan: Plan, asks: Asks) -> Iterator[Request]:
    """Own experts and the base on every task that a row or a choice is related to."""
    measured = {task for subset, study in asks for task in study.tasks(subset)}
    tested = {task for subset, study in asks for task in _tested(plan, subset, study)}
    splits: tuple[tuple[Split, set[str]], ...] = (("val", measured), ("test", tested))
    for split, tasks in splits:
        for task in sorted(tasks):
            if plan.setting.task(task).expert is not None:
                yield plan.setting.expert(task, task, split)
    for task in sorted(measured):
        yield plan.setting.zeroshot(task, "val")


def _sweeps(plan: Plan, asks: Asks) -> list[CurveAsk]:
    """What all studies together sweep, per merge and image set."""
    swept: dict[tuple[tuple[str, ...], str, Split], set[str]] = {}
    for subset, study in asks:
        scales = study.sweep(plan.lambdas)
        for split in plan.curves_on:
            for task in study.tasks(subset) if split == "val" else _tested(plan, subset, study):
                swept.setdefault((subset, task, split), set()).update(scales)
    return [
        CurveAsk(plan, subset, task, split, tuple(sorted(scales, key=lambda_value)))
        for (subset, task, split), scales in swept.items()
    ]


def _choices(plan: Plan, asks: Asks, work: _Work) -> dict[tuple[tuple[str, ...], str], Choice]:
    """Let every study choose, and measure what it chooses until nothing open is chosen any more."""
    choices: dict[tuple[tuple[str, ...], str], Choice] = {}
    for hopeful in (True, False) if work.interpolated else (False,):
        while True:
            choices = {
                (subset, study.name): study.choose(_curves(plan, subset, study, work, hopeful))
                for subset, study in asks
            }
            chosen = [
                plan.merged(subset, choices[subset, study.name].scale, task, "val")
                for subset, study in asks
                for task in study.tasks(subset)
            ]
            if all(request.key in work.outcomes for request in chosen):
                break
            work.fulfil("validation", chosen)
    return choices


def _tested(plan: Plan, subset: tuple[str, ...], study: Study) -> tuple[str, ...]:
    return tuple(sorted(plan.setting.tasks)) if plan.outside else study.tasks(subset)


def _curves(
    plan: Plan, subset: tuple[str, ...], study: Study, work: _Work, hopeful: bool
) -> Curves:
    setting, tasks, lambdas = plan.setting, study.tasks(subset), study.sweep(plan.lambdas)

    def correct(request: Request) -> int:
        if request.key in work.outcomes:
            return work.outcomes[request.key].correct
        row = work.interpolated[request.key]
        return row.outcome.correct + (row.open_misses if hopeful else 0)

    def counts(requests: Iterable[Request]) -> Counts:
        return np.array([correct(request) for request in requests], dtype=np.int64)

    return Curves(
        subset=subset,
        lambdas=lambdas,
        tasks=tasks,
        n=np.array([setting.task(task).parts["val"].n for task in tasks], dtype=np.int64),
        correct=np.stack(
            [counts(plan.merged(subset, scale, task, "val") for task in tasks) for scale in lambdas]
        ),
        expert=np.array(
            [
                correct(setting.expert(task, task, "val"))
                if setting.task(task).expert is not None
                else 0
                for task in tasks
            ],
            dtype=np.int64,
        ),
        zeroshot=counts(setting.zeroshot(task, "val") for task in tasks),
    )


def _lines(
    plan: Plan, asks: Asks, choices: Mapping[tuple[tuple[str, ...], str], Choice]
) -> list[Line]:
    """One line per row; what several studies ask for is there once."""
    roles: dict[tuple[tuple[str, ...], str, str, Split], Role] = {}
    for subset, study in asks:
        for scale in study.sweep(plan.lambdas):
            for task in study.tasks(subset):
                roles[subset, scale, task, "val"] = "selection"
            if "test" in plan.curves_on:
                for task in _tested(plan, subset, study):
                    roles.setdefault((subset, scale, task, "test"), "curve")
        for task in _tested(plan, subset, study):
            roles[subset, choices[subset, study.name].scale, task, "test"] = "selected"
    return [
        Line(
            plan.merged(subset, scale, task, split),
            plan.method.name,
            plan.method.options,
            subset,
            scale,
            role,
        )
        for (subset, scale, task, split), role in roles.items()
    ]
