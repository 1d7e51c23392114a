"""How far a run is, by a clock of the test's own."""

from __future__ import annotations

import pytest

from taskgrid.workflow.terminal.forecast import Forecast
from taskgrid.workflow.terminal.jobs import Job
from taskgrid.workflow.terminal.progress import RunProgress
from taskgrid.workflow.terminal.times import Machine
from tests.unit.workflow.terminal.example_jobs import evaluation, finetune, job

ONE = Machine(1, 0, "1 core")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def jobs() -> tuple[Job, Job]:
    return finetune("a"), evaluation("ties")


def forecast(*seconds: float | None) -> Forecast:
    known = {one.key: time for one, time in zip(jobs(), seconds, strict=True) if time is not None}
    return Forecast(jobs(), known, 0, (), ONE)


def test_time_goes_by_as_it_was_thought() -> None:
    clock, (first, second) = Clock(), jobs()
    run = RunProgress(forecast(60.0, 40.0), clock)
    assert run.left == 100.0 and run.fraction == 0.0
    run.start(first)
    clock.now += 30.0
    assert run.left == 70.0 and run.fraction == pytest.approx(0.3)
    clock.now += 30.0
    run.finish(first)
    run.start(second)
    assert (
        run.left == 40.0 and str(run) == "1 of 2 jobs · 40 s left · eval of m standard 0 ties 00000"
    )
    clock.now += 40.0
    run.finish(second)
    assert run.left == 0.0 and run.fraction == 1.0 and str(run) == "2 of 2 jobs"


def test_a_slow_machine_is_believed_more_and_more() -> None:
    clock, (first, _) = Clock(), jobs()
    run = RunProgress(forecast(60.0, 45.0), clock)
    run.start(first)
    clock.now += 150.0
    # What is late takes a little longer yet.
    assert run.left == pytest.approx(0.05 * 60.0 + 45.0)
    run.finish(first)
    assert run.left == pytest.approx(45.0 * (150.0 + 30.0) / (60.0 + 30.0))


def test_what_was_never_timed_is_learned_from_the_first_of_its_kind() -> None:
    clock, (first, second) = Clock(), jobs()
    run = RunProgress(forecast(None, None), clock)
    assert run.left == 20.0
    run.start(second)
    clock.now += 70.0
    run.finish(second)
    assert run.left == 10.0
    run = RunProgress(Forecast((first, finetune("b")), {}, 0, (), ONE), clock)
    run.start(first)
    clock.now += 70.0
    run.finish(first)
    assert run.left == 70.0


def test_failed_jobs_and_those_beside_the_longest_are_counted() -> None:
    clock, (first, second) = Clock(), jobs()
    third = job("grid", "grid")
    run = RunProgress(Forecast((first, second, third), {}, 0, (), ONE), clock)
    run.start(first)
    run.start(second)
    assert str(run).endswith("finetune of m standard 0 a (and 1 more)")
    run.fail(first)
    assert str(run).startswith("0 of 3 jobs · 1 failed · ")


def test_a_job_that_is_tried_again_has_not_failed() -> None:
    clock, (first, second) = Clock(), jobs()
    run = RunProgress(forecast(60.0, 45.0), clock)
    for one in (first, second):
        run.start(one)
    run.fail(first)
    assert run.failed == 1
    run.start(first)
    for one in (first, second):
        run.finish(one)
    assert str(run) == "2 of 2 jobs"
