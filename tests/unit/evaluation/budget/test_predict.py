"""A plan's lattice on a budget: rows against the grid that is measured throughout."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from taskgrid import plugins
from taskgrid.errors import ConfigError
from taskgrid.evaluation.budget.predict import PredictedGrid, predict_plan
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.rows import GRID
from taskgrid.evaluation.plan.setting import Request
from taskgrid.lattice.budgets import BudgetSpec
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.provenance import derive_seed
from taskgrid.store.logits import LogitsStore
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from tests.unit import example_grid
from tests.unit.example_plans import method, setting

ORDER = ("a", "b", "c", "d", "e")
SUBSETS = tuple(
    "+".join(names) for size in range(1, 6) for names in itertools.combinations(ORDER, size)
)
# 16 merges of at most two tasks, one further, nine audited: six of 32 are predicted.
SPEC = BudgetSpec(26, audit=9, level=0.9)


@dataclass
class Bench:
    """Logits that are sums of effects; lambda scales them."""

    asked: list[Request] = field(default_factory=list)
    machine: dict[str, str | int] = field(default_factory=lambda: {"batch_size": 8})
    stop_after: int | None = None

    def labels(self, task: str, split: str) -> NDArray[np.int64]:
        return np.random.default_rng(derive_seed(task, split)).integers(0, 4, 40)

    def listen(self, request: Request) -> tuple[Outcome, NDArray[Any]]:
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(request)
        logits = self.effect(request, ())
        merged = request.weights.subset if request.weights.kind == "merge" else ()
        for size, spread in ((1, 1.0), (2, 0.5), (3, 0.2)):
            for part in itertools.combinations(merged, size):
                logits = logits + spread * float(request.weights.point) * self.effect(request, part)
        hits = logits.argmax(axis=1) == self.labels(request.task, request.split)
        return Outcome.of(request.key, hits, 1.0, 0.1), logits

    def effect(self, request: Request, part: tuple[str, ...]) -> NDArray[np.float64]:
        seed = derive_seed("effect", request.task, request.split, *part)
        return np.random.default_rng(seed).normal(size=(40, 4))


@dataclass
class Counter(AbstractContextManager["Counter"]):
    """Counts images."""

    label: str
    total: int
    passed: int = 0

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, count: int = 1) -> None:
        self.passed += count


def plan(*lambdas: str, **options: Any) -> Plan:
    return make_plan(setting(ORDER, val=40, test=40), method(), SUBSETS, lambdas, **options)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_table_holds_every_row_and_says_which_are_predicted(tmp_path: Path, split: Any) -> None:
    bench, store = Bench(), OutcomeStore(tmp_path)
    counters: list[Counter] = []

    def progress(label: str, total: int) -> Counter:
        counters.append(Counter(label, total))
        return counters[-1]

    found = predict_plan(plan("0.30", "1.00"), SPEC, split, bench, store, progress=progress)
    assert found.table.schema == GRID
    rows = found.table.to_pylist()
    assert len(rows) == 2 * 5 * 16
    truth: Callable[[str, str, str], Outcome] = lambda subset, scale, task: Bench().listen(  # noqa: E731
        plan("1.00").merged(tuple(subset.split("+")), scale, task, split)
    )[0]
    exact_keys = {truth(row["subset"], row["point"], row["task"]).key for row in rows}
    predicted = [row for row in rows if row["interpolated"]]
    for row in rows:
        exact = truth(row["subset"], row["point"], row["task"])
        assert (row["split"], row["role"], row["in_subset"], row["n"]) == (
            split,
            "lattice",
            True,
            40,
        )
        if row["interpolated"]:
            assert row["key"] not in exact_keys
            assert row["bound"] >= 0
            assert row["size"] > 2
        else:
            assert (row["key"], row["correct"], row["bound"]) == (exact.key, exact.correct, None)
            assert store.find([row["key"]])[row["key"]] == exact
    # Six merges at each of two lambdas; an image set has a row for each that holds its task.
    assert len({(row["subset"], row["point"]) for row in predicted}) == 12
    assert len({row["key"] for row in rows}) == len(rows)
    assert found.reports.keys() == {"0.30", "1.00"}
    assert found.reports["0.30"].rest == 6
    assert found.reports["0.30"].error.mean <= found.reports["1.00"].error.mean
    # Every merge and image set once, and the experts' rows to normalise by.
    assert len({request.key for request in bench.asked}) == len(bench.asked) - 5
    assert sum(counter.passed for counter in counters) == 40 * (len(bench.asked) - 5)
    assert all(counter.passed <= counter.total for counter in counters)


def test_a_second_run_makes_no_pass_and_a_killed_one_goes_on(tmp_path: Path) -> None:
    def run(folder: str, **options: Any) -> tuple[PredictedGrid, list[Request]]:
        bench, root = Bench(**options), tmp_path / folder
        kept = LogitsStore(root / "logits")
        found = predict_plan(plan("0.30"), SPEC, "val", bench, OutcomeStore(root), logits=kept)
        return found, bench.asked

    whole, passes = run("one")
    again, none = run("one")
    assert none == []
    assert again.table.equals(whole.table)
    assert again.reports == whole.reports
    # In memory alone it is the same.
    plain = predict_plan(plan("0.30"), SPEC, "val", Bench(), OutcomeStore(tmp_path / "plain"))
    assert plain.table.equals(whole.table)
    for stop in (1, 50, len(passes) - 7):
        with pytest.raises(KeyboardInterrupt):
            run(f"killed {stop}", stop_after=stop)
        resumed, rest = run(f"killed {stop}")
        assert len(rest) == len(passes) - stop
        assert resumed.table.equals(whole.table)
    # Another batch size has other last bits: nothing is found.
    _, other = run("one", machine={"batch_size": 4})
    assert {request.key for request in other} == {
        request.key for request in passes if request.weights.kind != "expert"
    }


def test_rows_that_the_grid_measured_are_kept_as_they_were(tmp_path: Path) -> None:
    store, measured = OutcomeStore(tmp_path), plan("0.30").merged(("a", "b"), "0.30", "a", "val")
    other = Outcome.of(measured.key, np.zeros(40, dtype=bool), 9.0, 0.9)
    with store.writer() as writer:
        writer.add(other)
    written = []

    class Watched(OutcomeStore):
        @contextmanager
        def writer(self) -> Iterator[Any]:
            class Taking:
                def add(self, outcome: Outcome) -> None:
                    written.append(outcome.key)

            yield Taking()

    bench = Bench()
    found = predict_plan(plan("0.30"), SPEC, "val", bench, Watched(tmp_path))
    assert measured.key in {request.key for request in bench.asked}
    assert written and measured.key not in written
    rows = found.table.to_pandas()
    assert rows[rows["key"] == measured.key]["correct"].tolist() == [0]


def test_logits_whose_row_is_lost_or_that_are_damaged_are_measured_again(tmp_path: Path) -> None:
    def run(store: str) -> int:
        bench, kept = Bench(), LogitsStore(tmp_path / "logits")
        predict_plan(plan("0.30"), SPEC, "val", bench, OutcomeStore(tmp_path / store), logits=kept)
        return len(bench.asked)

    everything = run("one")
    assert run("other") == everything
    damaged = sorted((tmp_path / "logits").iterdir())[:4]
    for path, content in zip(damaged, [b"", b"junk", damaged[2].read_bytes()[:-9]], strict=False):
        path.write_bytes(content)
    np.save(damaged[3], np.zeros((39, 4), dtype=np.float32))
    assert run("one") == 4


def test_each_merge_is_placed_once_on_a_real_engine(tmp_path: Path) -> None:
    small = example_grid.world(ORDER[:4])
    material = example_grid.memory(small)
    merger, placed = plugins.load("merger", "task_arithmetic").MERGER, []
    engine = Engine(material, MergeRecipe.of("task_arithmetic", {}), batch_size=8)
    apply = merger.apply

    def counted(base: Any, prepared: Any, scale: float, *rest: Any, **named: Any) -> Any:
        placed.append(scale)
        return apply(base, prepared, scale, *rest, **named)

    tiny = example_grid.held(small).setting("tiny", "standard", 0, "fp32", "plain")
    small_plan = make_plan(tiny, method(), [s for s in SUBSETS if "e" not in s], ["0.30"])
    spec, store = BudgetSpec(14, audit=3, level=0.75), OutcomeStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merger, "apply", counted)
        kept = LogitsStore(tmp_path / "logits")
        first = predict_plan(small_plan, spec, "val", engine, store, logits=kept)
        # Fourteen evaluated, the base among them.
        assert len(placed) == 13
        second = predict_plan(small_plan, spec, "val", engine, store, logits=kept)
        assert len(placed) == 13
    assert first.table.equals(second.table)


def test_the_keys_of_predictions_depend_on_what_was_evaluated(tmp_path: Path) -> None:
    def predicted(spec: BudgetSpec) -> dict[tuple[str, str], str]:
        found = predict_plan(plan("0.30"), spec, "val", Bench(), OutcomeStore(tmp_path))
        return {
            (row["subset"], row["task"]): row["key"]
            for row in found.table.to_pylist()
            if row["interpolated"]
        }

    first, other = predicted(SPEC), predicted(replace(SPEC, seed=1))
    assert first == predicted(SPEC)
    assert all(first[at] != other[at] for at in first.keys() & other.keys())


def test_what_needs_no_budget_is_refused(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path)
    with pytest.raises(ConfigError, match="at lambda 0 every merge is the base"):
        predict_plan(plan("0.00", "0.30"), SPEC, "val", Bench(), store)
    tangent = plan("0.30")
    tangent = replace(tangent, setting=replace(tangent.setting, tangent="code"))
    with pytest.raises(ConfigError, match="tangent models need no budget"):
        predict_plan(tangent, SPEC, "val", Bench(), store)
