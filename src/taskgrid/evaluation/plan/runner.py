"""Running a plan: find what is stored, measure what is missing, choose, measure the choice on test.

Where some rows are estimates, the chosen point is measured all the same, on validation too. The
choice is made with every open image counted as a hit, and again as long as it falls on an estimate; so
for a study that prefers more hits it is the choice of the grid that is measured throughout, as far as
bounds hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from taskgrid.evaluation.plan.asking import Asked
from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.evaluation.plan.planner import Plan, Sweep
from taskgrid.evaluation.plan.rows import PlannedRow, Role, grid_table
from taskgrid.evaluation.plan.setting import SPLITS, Request, Setting, Split
from taskgrid.evaluation.plan.work import Measures, Result, Work
from taskgrid.lattice.points import point_order
from taskgrid.machine.meter import OpenTally
from taskgrid.machine.timing import Clock
from taskgrid.store.outcome import Outcomes
from taskgrid.studies.seam import Choice, Counts, Curves

OpenEngine = Callable[[], Measures]

TakeSweeps = Callable[[Work, Sequence[Sweep]], Sequence[Sweep]]
"""Brings some sweeps together in its own way, and returns the others, to be measured point by point."""


def run_plan(
    plan: Plan,
    store: Outcomes,
    open_engine: OpenEngine,
    progress: OpenTally | None = None,
    clock: Clock | None = None,
    take: TakeSweeps | None = None,
) -> Result:
    """Bring all rows of a plan together.

    Args:
        plan: the block.
        store: where rows are looked up and kept.
        open_engine: called once, and only if a row is missing.
        progress: makes a counter of images from a label and a total.
        clock: of the job; None counts from here.
        take: takes sweeps otherwise than point by point.
    """
    work, asked = Work(store, open_engine, progress, clock), plan.asked
    wanted = _Wanted(plan, asked)
    sweeps = wanted.sweeps()
    left = take(work, sweeps) if take is not None else sweeps
    points = [request for sweep in left for request in plan.requests(sweep)]
    work.fulfil("validation", [*_references(plan, asked), *points])
    while more := wanted.more(work):
        work.fulfil("validation", [r for sweep in more for r in plan.requests(sweep)])
    choices = _choices(plan, wanted, work)
    tested = [
        plan.merged(ask.question.subset, choice.point, task, "test")
        for ask, choice in choices
        for task in _tested(plan, ask)
    ]
    work.fulfil("test", tested)
    return work.result(
        grid_table(plan.setting, _lines(plan, wanted, choices), work.rows, work.bounds),
        [_chosen(plan, ask, choice) for ask, choice in choices],
    )


def run_reference(
    setting: Setting,
    store: Outcomes,
    open_engine: OpenEngine,
    progress: OpenTally | None = None,
    clock: Clock | None = None,
) -> Result:
    """Bring the reference rows together: the base and every expert on every task, val and test."""
    work = Work(store, open_engine, progress, clock)
    lines = [
        PlannedRow(setting.zeroshot(task, split), "zeroshot", {}, (), "0.00", "reference")
        for task in setting.tasks
        for split in SPLITS
    ]
    lines += [
        PlannedRow(
            setting.expert(expert, task, split), "expert", {}, (expert,), "1.00", "reference"
        )
        for expert in setting.experts
        for task in setting.tasks
        for split in SPLITS
    ]
    work.fulfil("reference", [line.request for line in lines])
    return work.result(grid_table(setting, lines, work.outcomes))


class _Wanted:
    """The points that each question wants, which grow as it sees its curves."""

    def __init__(self, plan: Plan, asked: Sequence[Asked]) -> None:
        self._plan, self.asked = plan, asked
        self._points: list[tuple[str, ...]] = [
            _ordered(ask.study.points(ask.question, self._sweep(ask), None)) for ask in asked
        ]

    def points(self, index: int) -> tuple[str, ...]:
        return self._points[index]

    def sweeps(self) -> list[Sweep]:
        """What all questions together want, per merge and image set."""
        found: dict[tuple[tuple[str, ...], str, Split], set[str]] = {}
        for ask, points in zip(self.asked, self._points, strict=True):
            for split in self._plan.curves_on:
                tasks = ask.question.tasks if split == "val" else _tested(self._plan, ask)
                for task in tasks:
                    found.setdefault((ask.question.subset, task, split), set()).update(points)
        return [
            Sweep(subset, task, split, _ordered(points))
            for (subset, task, split), points in found.items()
        ]

    def more(self, work: Work) -> list[Sweep]:
        """Ask every question again; return what is wanted beside what was, as sweeps."""
        content = True
        for index, ask in enumerate(self.asked):
            known = self._points[index]
            again = ask.study.points(
                ask.question, self._sweep(ask), self.curves(index, work, hopeful=False)
            )
            if set(again) - set(known):
                content = False
                self._points[index] = _ordered([*known, *again])
        return [] if content else self.sweeps()

    def curves(self, index: int, work: Work, *, hopeful: bool) -> Curves:
        plan, ask, points = self._plan, self.asked[index], self._points[index]
        subset, tasks, setting = ask.question.subset, ask.question.tasks, plan.setting

        def counts(requests: Iterable[Request | None]) -> Counts:
            found = [
                work.correct(request, hopeful=hopeful) if request is not None else 0
                for request in requests
            ]
            return np.array(found, dtype=np.int64)

        rows = [
            counts(plan.merged(subset, point, task, "val") for task in tasks) for point in points
        ]
        return Curves(
            subset=subset,
            points=points,
            tasks=tuple(tasks),
            n=np.array([setting.task(task).parts["val"].n for task in tasks], dtype=np.int64),
            correct=np.stack(rows),
            expert=counts(
                setting.expert(task, task, "val") if setting.task(task).expert else None
                for task in tasks
            ),
            zeroshot=counts(setting.zeroshot(task, "val") for task in tasks),
        )

    def _sweep(self, ask: Asked) -> tuple[str, ...]:
        return self._plan.sweep(ask.question.subset)


Choices = Sequence[tuple[Asked, Choice]]


def _choices(plan: Plan, wanted: _Wanted, work: Work) -> list[tuple[Asked, Choice]]:
    """Let every study choose, and measure what it chooses until no estimate is chosen any more."""
    choices: list[tuple[Asked, Choice]] = []
    for hopeful in (True, False) if work.estimates else (False,):
        while True:
            choices = [
                (ask, ask.study.choose(ask.question, wanted.curves(at, work, hopeful=hopeful)))
                for at, ask in enumerate(wanted.asked)
            ]
            chosen = [
                plan.merged(ask.question.subset, choice.point, task, "val")
                for ask, choice in choices
                for task in ask.question.tasks
            ]
            if all(request.key in work.outcomes for request in chosen):
                break
            work.fulfil("validation", chosen)
    return choices


def _references(plan: Plan, asked: Sequence[Asked]) -> Iterator[Request]:
    """Own experts and the base on every task that a row or a choice is related to."""
    measured = {task for ask in asked for task in ask.question.tasks}
    tested = {task for ask in asked for task in _tested(plan, ask)}
    splits: tuple[tuple[Split, set[str]], ...] = (("val", measured), ("test", tested))
    for split, tasks in splits:
        for task in sorted(tasks):
            if plan.setting.task(task).expert is not None:
                yield plan.setting.expert(task, task, split)
    for task in sorted(measured):
        yield plan.setting.zeroshot(task, "val")


def _tested(plan: Plan, ask: Asked) -> tuple[str, ...]:
    question = ask.question
    if not plan.outside:
        return tuple(question.tasks)
    return plan.measurable(question.subset, sorted(plan.setting.tasks))


def _lines(plan: Plan, wanted: _Wanted, choices: Choices) -> list[PlannedRow]:
    """One line per row; what several studies ask for is there once."""
    roles: dict[tuple[tuple[str, ...], str, str, Split], Role] = {}
    for index, (ask, choice) in enumerate(choices):
        subset, tested = ask.question.subset, _tested(plan, ask)
        for point in wanted.points(index):
            for task in ask.question.tasks:
                roles[subset, point, task, "val"] = "selection"
            if "test" in plan.curves_on:
                for task in tested:
                    roles.setdefault((subset, point, task, "test"), "curve")
        for task in tested:
            roles[subset, choice.point, task, "test"] = "selected"
    method = plan.method
    return [
        PlannedRow(
            plan.merged(subset, point, task, split),
            method.name,
            method.shown,
            subset,
            point,
            role,
            method.transductive,
        )
        for (subset, point, task, split), role in roles.items()
    ]


def _chosen(plan: Plan, ask: Asked, choice: Choice) -> Chosen:
    setting, method = plan.setting, plan.method
    return Chosen.of(
        ask,
        choice,
        model=setting.model,
        mode=setting.mode,
        seed=setting.seed,
        method=method.name,
        options=method.shown,
    )


def _ordered(points: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(points), key=point_order))
