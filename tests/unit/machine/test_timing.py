"""Where an evaluation job's time goes: to its start, and to the rows of each merge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import GridFiles, open_files
from taskgrid.evaluation.opening.references import read_method, read_setting
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.evaluation.plan.setting import Request, Setting
from taskgrid.machine import timing as clock_module
from taskgrid.machine.timing import Clock, Timing, process_age
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from tests.unit.evaluation.opening.test_files import Flow
from tests.unit.example_grid import world
from tests.unit.example_plans import FakeBench, method, setting

EPOCH = 1_767_323_045.0  # 2026-01-02T03:04:05Z


class Hands:
    """A clock whose time passes only when it is told to."""

    def __init__(self) -> None:
        self.at = 100.0

    def pass_(self, seconds: float) -> None:
        self.at += seconds

    def clock(self, age: float = 0.0) -> Clock:
        return Clock(age, now=lambda: self.at, today=lambda: EPOCH + self.at - 100.0)


@dataclass
class SlowBench(FakeBench):
    """Takes two seconds to open, five more to the first image, and one per image set's row."""

    hands: Hands | None = None
    first_image: Callable[[], None] | None = None

    def open(self) -> SlowBench:
        assert self.hands is not None
        self.hands.pass_(2)
        super().open()
        return self

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        assert self.hands is not None
        if not self.asked:
            self.hands.pass_(5)
        if self.first_image:
            self.first_image()
        for outcome in super().evaluate(requests, lambda n: None):
            self.hands.pass_(len(self.asked[-1].weights.subset) or 7)
            yield outcome


def test_start_and_rows_are_told_apart(tmp_path: Path) -> None:
    hands = Hands()
    clock = hands.clock(age=3)
    bench = SlowBench(hands=hands, first_image=clock.first_image)
    plan = make_plan(setting("ab"), method(), ["a", "a+b"], ["0.00", "0.50", "1.00"])
    store = OutcomeStore(tmp_path)
    result = run_plan(plan, store, bench.open, clock=clock)
    spent: dict[str, float] = defaultdict(float)
    for request in bench.asked:
        weights = request.weights
        name = "+".join(weights.subset) if weights.kind == "merge" else ""
        spent[name] += len(weights.subset) or 7
    timing = result.timing
    # Experts and the base belong to no merge; neither does what came before the first image.
    assert (timing.startup, timing.measured) == (3 + 2 + 5, sum(spent.values()))
    assert {name: span.seconds for name, span in timing.merges.items()} == {
        name: seconds for name, seconds in spent.items() if name
    }
    first = datetime.fromisoformat(timing.merges["a"].started).timestamp()
    before = bench.asked[: next(i for i, r in enumerate(bench.asked) if r.weights.kind == "merge")]
    assert first == EPOCH + 7 + sum(len(r.weights.subset) or 7 for r in before)
    share = 100 * 10 / (10 + sum(spent.values()))
    assert result.sentence().endswith(
        f", found 0; 10.0 s to start, {sum(spent.values()):.1f} s measured (start-up {share:.1f} %)"
    )
    assert result.cost()["rows"] == len(bench.asked) and json.dumps(result.cost())
    # Rows that are found were not computed by this job: no time is made up for them.
    again = run_plan(plan, store, bench.open, clock=hands.clock(age=3))
    assert (again.timing, again.evaluated) == (Timing(), 0)
    assert again.cost()["subsets"] == result.cost()["subsets"] == ["a", "a+b"]
    assert again.sentence().endswith(f"found {result.evaluated}")
    # A new lambda: time of its rows alone; and a bench that does not tell began with its first lap.
    wider = make_plan(setting("ab"), method(), ["a"], ["0.00", "0.25", "0.50", "1.00"])
    silent = SlowBench(hands=hands)
    more = run_plan(wider, store, silent.open, clock=hands.clock())
    assert more.timing.startup == 2
    assert more.timing.merges["a"].seconds == more.timing.measured == 5 + len(silent.asked)
    # One that tells begins its first merge with the first image.
    wider = make_plan(setting("ab"), method(), ["a"], ["0.00", "0.25", "0.50", "0.75", "1.00"])
    clock = hands.clock()
    frank = SlowBench(hands=hands, first_image=clock.first_image)
    most = run_plan(wider, store, frank.open, clock=clock)
    assert most.timing.startup == 7
    assert most.timing.merges["a"].seconds == most.timing.measured == len(frank.asked)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.floats(0, 50)), max_size=20))
def test_no_time_is_counted_twice(laps: list[tuple[str, float]]) -> None:
    hands = Hands()
    clock = hands.clock(age=1)
    hands.pass_(2)
    clock.begin()
    for merge, seconds in laps:
        hands.pass_(seconds)
        clock.lap(merge)
    timing = clock.timing()
    counted = sum(span.seconds for span in timing.merges.values())
    assert counted == pytest.approx(sum(seconds for merge, seconds in laps if merge))
    assert timing.measured == pytest.approx(sum(seconds for _, seconds in laps))
    assert timing.startup == (3 if laps else 0)
    assert 0 <= timing.share <= 1


def test_the_engine_says_when_the_first_image_comes(tmp_path: Path) -> None:
    small = world()
    flow = Flow(tmp_path, small)
    named = {"model": "model", "mode": "standard", "seed": 0, "precision": "fp32"}
    where = read_setting(tasks=flow.manifests, card=small.card, **named)
    base = (tmp_path / "base.json", tmp_path / "base.safetensors")
    told: list[int] = []
    passed: list[int] = []
    files = open_files(GridFiles(*base, flow.files), where, {})
    plan = make_plan(where, read_method("task_arithmetic", {}, 0), ["a"], ["0.00", "1.00"])
    with engine_on_demand(
        files,
        where,
        plan.method,
        device="cpu",
        batch_size=5,
        first_image=lambda: told.append(len(passed)),
    ) as bench:
        assert bench.machine() == {}
        opened = bench()
        assert told == []
        list(opened.evaluate([where.zeroshot("a", "val")], passed.append))
        assert told == [0]
        list(opened.evaluate([where.zeroshot("b", "val")], passed.append))
    assert bench.machine() == {
        "batch_size": 5,
        "device": "cpu",
        "compiled": False,
        "torch": torch.__version__,
    }
    assert told == [0] and len(passed) == 2
    # A bench that was never used tells nothing, later on neither.
    with engine_on_demand(files, where, device="cpu", first_image=lambda: told.append(-1)) as bench:
        bench()
    result = run_reference(where, OutcomeStore(tmp_path / "store"), opened_again(files, where))
    assert told == [0] and result.timing.measured > 0


def opened_again(files: Material, where: Setting) -> Callable[[], object]:
    def opened() -> object:
        with engine_on_demand(files, where, device="cpu", batch_size=5) as bench:
            return bench()

    return opened


def test_a_process_knows_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import time; time.sleep(0.5)\n"
        "from taskgrid.machine.timing import process_age; print(process_age())"
    )
    before = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    if sys.platform == "linux":
        assert 0.5 <= float(done.stdout) <= time.monotonic() - before + 0.02
    monkeypatch.setattr(clock_module, "Path", lambda path: Path("/nowhere"))
    assert process_age() == pytest.approx(time.process_time(), abs=0.1)
