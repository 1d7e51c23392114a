"""What a run will take, in a sentence."""

from __future__ import annotations

from pathlib import Path

from taskgrid.workflow.terminal.forecast import Forecast, foresee
from tests.unit.workflow.example_experiment import experiment
from tests.unit.workflow.terminal.example_jobs import (
    MACHINE,
    evaluation,
    finetune,
    job,
    plan,
    updated,
    write_benchmark,
    write_plan,
    write_timing,
)


def test_new_points_are_told_with_the_time_and_the_reason(tmp_path: Path) -> None:
    write_plan(tmp_path, experiment())
    write_benchmark(tmp_path, "merge/m/standard/0/task_arithmetic/00000", 1.0)
    write_benchmark(tmp_path, "eval/m/standard/0/task_arithmetic/00000", 26.0)
    write_timing(tmp_path, "m/standard/0/task_arithmetic/00000", images=1000, seconds=20.0)
    (tmp_path / "results/models/m").mkdir(parents=True)
    known = experiment(grid={"lambdas": [0, 0.3, 0.35, 1]})
    jobs = [plan(reason="Params have changed"), evaluation(reason=updated("results/merge/x.json"))]
    found = foresee(known, jobs, MACHINE, tmp_path)
    # One more lambda for 4 tasks of 200 images at 20 ms, after 6 s; two jobs in one stage.
    assert found.points == 3 and found.total == 22.0
    assert str(found) == (
        "3 new points in 2 jobs, about 22 s on 2 cores, because lambda 0.35 was added"
    )
    assert list(found.stages()) == ["  merges    merge 1, eval 1, 23 s of work"]


def test_what_was_never_timed_is_said() -> None:
    jobs = (finetune("a"), finetune("b"), job("grid", "grid"))
    reasons = tuple(f"reason {number}" for number in range(6))
    partly = Forecast(jobs, {jobs[2].key: 5.0}, 0, reasons, MACHINE)
    assert str(partly) == (
        "2 new experts in 3 jobs, about 5 s on 2 cores and 2 jobs never timed yet, because reason 0; "
        "reason 1; reason 2; reason 3; 2 more"
    )
    never = Forecast(jobs[2:], {}, 0, ("x is missing",), MACHINE)
    assert str(never) == "1 job, for a time that is not known yet, because x is missing"


def test_nothing_to_do_is_said() -> None:
    assert str(Forecast((), {}, 0, (), MACHINE)) == "everything is up to date"
