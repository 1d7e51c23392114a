"""The runner with a bench that follows a law: what is asked for, counted; what comes out."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from taskgrid.errors import ArtifactError
from taskgrid.evaluation.plan.asking import StudyRef
from taskgrid.evaluation.plan.choices import chosen_point, read_choices, write_choices
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.rows import GRID, collect_rows, read_rows, unique_rows
from taskgrid.evaluation.plan.runner import Result, run_plan, run_reference
from taskgrid.evaluation.plan.setting import Request
from taskgrid.machine.progress import Progress
from taskgrid.plugins.cards import StudyCard
from taskgrid.store.atomic import write_json
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.studies.seam import Choice, Choosing, Curves, Field, Question
from tests.unit.example_plans import FakeBench, method, setting

LAMBDAS = ("0.00", "0.25", "0.50", "0.75", "1.00")


def subsets(names: str, sizes: Iterable[int] = range(1, 9)) -> list[str]:
    return ["+".join(s) for size in sizes for s in itertools.combinations(sorted(names), size)]


def planned(
    names: str = "abc",
    lambdas: Sequence[str] = LAMBDAS,
    only: Sequence[str] | None = None,
    **options: Any,
) -> Plan:
    name = options.pop("method", "task_arithmetic")
    chosen = only if only is not None else subsets(names)
    return make_plan(setting(names), method(name), chosen, lambdas, **options)


class Desk:
    """A store, and a count of what a run asked a bench for."""

    def __init__(self, root: Path) -> None:
        self.store = OutcomeStore(root)
        self.bench = FakeBench()

    def reference(self, names: str = "abc") -> Result:
        self.bench = FakeBench()
        return run_reference(setting(names), self.store, self.bench.open)

    def run(self, plan: Plan) -> Result:
        self.bench = FakeBench()
        return run_plan(plan, self.store, self.bench.open)

    @property
    def asked(self) -> list[Request]:
        return self.bench.asked


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "store")


def rows_where(table: pa.Table, **wanted: Any) -> list[dict[str, Any]]:
    return [
        row
        for row in table.to_pylist()
        if all(row[key.rstrip("_")] == value for key, value in wanted.items())
    ]


# --- what is asked for -----------------------------------------------------------------------------


def test_every_point_is_measured_on_val_and_the_chosen_ones_on_test(desk: Desk) -> None:
    desk.reference()
    result = desk.run(planned())
    merges = [request for request in desk.asked if request.weights.kind == "merge"]
    # lambda 0 is the base, measured before; 12 = sum over subsets of their sizes.
    assert sum(request.split == "val" for request in merges) == 4 * 12
    assert {request.weights.kind for request in desk.asked} == {"merge"}
    tested = [request for request in merges if request.split == "test"]
    assert len(tested) == 12
    assert len({(request.weights, request.task) for request in tested}) == 12
    assert len({request.weights.subset for request in tested}) == 7
    for subset in {request.weights.subset for request in tested}:
        scales = {request.weights.point for request in tested if request.weights.subset == subset}
        assert len(scales) == 1
    assert result.table.num_rows == 5 * 12 + 12
    assert result.evaluated == len(desk.asked)
    assert result.points == len({request.weights for request in desk.asked})


def test_each_request_is_made_once(desk: Desk) -> None:
    desk.run(planned(outside=True, curves_on=("val", "test")))
    keys = [request.key for request in desk.asked]
    assert len(keys) == len(set(keys))


def test_a_second_run_opens_no_bench(desk: Desk) -> None:
    first = desk.run(planned())
    second = desk.run(planned())
    assert (desk.bench.opened, second.evaluated, second.points, second.images) == (0, 0, 0, 0)
    assert second.found == first.evaluated + first.found
    assert second.table == first.table
    assert second.sentence().startswith("evaluated 0 rows of 0 points (0 images), found ")


def test_a_new_lambda_evaluates_its_own_points_only(desk: Desk) -> None:
    desk.reference()
    desk.run(planned())
    result = desk.run(planned(lambdas=[*LAMBDAS, "0.60"]))
    assert {request.weights.point for request in desk.asked} == {"0.60"}
    assert sum(request.split == "val" for request in desk.asked) == 12
    assert result.points == 7


def test_a_new_task_evaluates_only_what_contains_it(desk: Desk) -> None:
    desk.reference("abc")
    desk.run(planned("abc"))
    desk.reference("abcd")
    for request in desk.asked:
        assert "d" in (*request.weights.subset, request.task)
    # Expert d on 4 tasks, 3 experts and the base on d; two splits each.
    assert len(desk.asked) == 2 * (4 + 3 + 1)
    desk.run(planned("abcd"))
    assert all("d" in request.weights.subset for request in desk.asked)
    # 20 = sum of sizes of the 8 subsets with d.
    assert len(desk.asked) == 4 * 20 + 20


def test_a_removed_or_moved_task_or_lambda_evaluates_nothing(desk: Desk) -> None:
    desk.reference("abcd")
    desk.run(planned("abcd"))
    desk.reference("abd")
    assert desk.asked == []
    desk.run(planned("dba"))
    assert desk.asked == []
    desk.run(planned("abcd", only=["c+a+b", "d"]))
    assert desk.asked == []


def test_a_removed_lambda_costs_at_most_the_test_rows_of_the_next_best(desk: Desk) -> None:
    desk.run(planned())
    desk.run(planned(lambdas=("0.00", "0.25")))
    assert all(request.split == "test" for request in desk.asked)


def test_methods_share_the_base_and_the_experts(desk: Desk) -> None:
    desk.run(planned())
    desk.run(planned(method="average"))
    assert {request.weights.kind for request in desk.asked} == {"merge"}
    assert all(request.weights.point != "0.00" for request in desk.asked)


def test_an_edited_kernel_evaluates_everything_and_an_edited_merger_its_own(desk: Desk) -> None:
    desk.reference()
    desk.run(planned())
    edited = planned()
    desk.run(replace(edited, method=replace(edited.method, code="edited")))
    assert {request.weights.kind for request in desk.asked} == {"merge"}
    desk.run(replace(edited, setting=replace(edited.setting, kernel="edited")))
    assert {request.weights.kind for request in desk.asked} == {"base", "expert", "merge"}


def test_a_block_alone_brings_its_own_references(desk: Desk) -> None:
    desk.run(planned(only=["a"]))
    kinds = {(request.weights.kind, request.task, request.split) for request in desk.asked}
    assert {k for k in kinds if k[0] == "expert"} == {
        ("expert", "a", "val"),
        ("expert", "a", "test"),
    }
    assert ("base", "a", "val") in kinds


# --- what comes out --------------------------------------------------------------------------------


def test_rows_say_what_they_are(desk: Desk) -> None:
    desk.reference()
    table = desk.run(planned()).table
    assert table.schema == GRID
    for row in table.to_pylist():
        assert (row["model"], row["mode"], row["seed"]) == ("tiny", "standard", 0)
        assert row["size"] == len(row["subset"].split("+"))
        assert row["in_subset"] == (row["task"] in row["subset"].split("+"))
        assert row["accuracy"] == row["correct"] / row["n"]
        assert row["n"] == {"val": 40, "test": 60}[row["split"]]
        assert row["options"] == '{"normalize":false,"weights":null}'
        assert row["role"] == {"val": "selection", "test": "selected"}[row["split"]]


def test_normalised_accuracy_is_relative_to_the_own_expert_on_the_same_images(desk: Desk) -> None:
    reference = desk.reference().table
    own = {
        (row["task"], row["split"]): row["correct"]
        for row in rows_where(reference, method="expert")
        if row["subset"] == row["task"]
    }
    for row in [*rows_where(reference, method="expert"), *desk.run(planned()).table.to_pylist()]:
        assert row["normalized_accuracy"] == row["correct"] / own[row["task"], row["split"]]
    assert all(
        row["normalized_accuracy"] == 1
        for row in rows_where(reference, method="expert", in_subset=True)
    )


def test_reference_rows(desk: Desk) -> None:
    table = desk.reference("ab").table
    zeroshot, experts = (rows_where(table, method=name) for name in ("zeroshot", "expert"))
    assert len(zeroshot) == 2 * 2
    assert len(experts) == 2 * 2 * 2
    for row in zeroshot:
        assert row["mode"] is row["seed"] is row["normalized_accuracy"] is None
        assert (row["subset"], row["size"], row["point"], row["in_subset"]) == (
            "",
            0,
            "0.00",
            False,
        )
    for row in experts:
        assert (row["size"], row["point"], row["mode"]) == (1, "1.00", "standard")
        assert row["in_subset"] == (row["subset"] == row["task"])
    assert {row["role"] for row in zeroshot + experts} == {"reference"}


def test_curves_on_test_are_marked(desk: Desk) -> None:
    table = desk.run(planned("ab", curves_on=("val", "test"))).table
    for subset in ("a", "b", "a+b"):
        tested = rows_where(table, subset=subset, split="test")
        assert {row["point"] for row in tested} == set(LAMBDAS)
        chosen = {row["point"] for row in tested if row["role"] == "selected"}
        assert len(chosen) == 1
        assert {row["role"] for row in tested if row["point"] not in chosen} == {"curve"}


def test_outside_tasks_are_measured_at_the_chosen_point_on_test(desk: Desk) -> None:
    table = desk.run(planned("abc", only=["a"], outside=True)).table
    outside = rows_where(table, in_subset=False)
    assert {(row["task"], row["split"]) for row in outside} == {("b", "test"), ("c", "test")}
    assert all(row["normalized_accuracy"] is not None for row in outside)
    chosen = {row["point"] for row in rows_where(table, split="test")}
    assert len(chosen) == 1


def test_a_task_without_an_expert_is_measured_but_not_normalised(desk: Desk) -> None:
    ours = setting("ab")
    tasks = {**ours.tasks, "b": replace(ours.tasks["b"], expert=None, vector=None)}
    plan = make_plan(replace(ours, tasks=tasks), method(), ["a"], LAMBDAS, outside=True)
    (control,) = rows_where(desk.run(plan).table, task="b")
    assert control["normalized_accuracy"] is None
    assert control["accuracy"] > 0


def test_rows_do_not_depend_on_blocks_order_or_history(tmp_path: Path) -> None:
    everything = subsets("abcd")
    write_table(tmp_path / "whole.parquet", Desk(tmp_path / "0").run(planned("abcd")).table)
    expected = (tmp_path / "whole.parquet").read_bytes()
    for number, cuts in enumerate(([4, 9], [1, 2, 3], [14])):
        desk, paths = Desk(tmp_path / str(number + 1)), []
        blocks = np.split(np.array(everything), cuts)
        for index, block in enumerate(reversed(blocks)):
            paths.append(tmp_path / f"{number}-{index}.parquet")
            desk.run(planned("abcd", lambdas=("0.00", "0.75"), only=list(block)))
            table = desk.run(planned("abcd", only=list(block))).table
            write_table(paths[-1], table)
        write_table(tmp_path / "joined.parquet", collect_rows(paths))
        assert (tmp_path / "joined.parquet").read_bytes() == expected


class Last(Choosing):
    """Asks pairs, wants a point beyond the sweep, and one more once it has seen that."""

    def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
        return [Question(subset, subset)] if len(subset) == 2 else []

    def points(
        self, question: Question, sweep: Sequence[str], curves: Curves | None
    ) -> Sequence[str]:
        return [*sweep, "2.00"] if curves is None or "2.00" not in curves.points else ["3.00"]

    def choose(self, question: Question, curves: Curves) -> Choice:
        assert curves.correct.shape == (len(curves.points), 2)
        return Choice(curves.points[-1], at_edge=True, met=False)


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> StudyRef:
    """Register a study of this module."""
    from taskgrid.plugins import registry

    known = {**registry._PLUGINS["study"], "last": __name__}
    monkeypatch.setattr(registry, "_PLUGINS", {**registry._PLUGINS, "study": known})
    return StudyRef("last", "the_last")


CARD = StudyCard(title="The last point", rule="the last point")
STUDY = Last


def test_two_studies_share_rows_and_choose_each_their_own(desk: Desk, last: StudyRef) -> None:
    addition = StudyRef("addition", "addition")
    both = desk.run(planned("abc", studies=[addition, last]))
    alone = Desk(desk.store._root.parent / "other").run(planned("abc"))
    for row in alone.table.to_pylist():
        assert row in both.table.to_pylist()
    extra = [row for row in both.table.to_pylist() if row not in alone.table.to_pylist()]
    assert {(row["point"], row["size"]) for row in extra} == {("2.00", 2), ("3.00", 2)}
    assert {row["role"] for row in extra} == {"selection", "selected"}
    assert both.choices[: len(alone.choices)] == alone.choices
    theirs = both.choices[len(alone.choices) :]
    assert {(c.study, c.rule, c.point, c.met) for c in theirs} == {
        ("the_last", "the last point", "3.00", False)
    }
    assert sorted(c.subset for c in theirs) == ["a+b", "a+c", "b+c"]


def test_choices_are_written_and_read_again(desk: Desk, tmp_path: Path) -> None:
    choices = desk.run(planned("ab")).choices
    write_choices(tmp_path / "choices.json", choices)
    assert read_choices(tmp_path / "choices.json") == choices
    added = {one.subset: one.point for one in choices if one.study == "addition"}
    for subset, point in added.items():
        assert chosen_point(tmp_path / "choices.json", subset) == point
    with pytest.raises(ArtifactError, match="holds no point for z"):
        chosen_point(tmp_path / "choices.json", "z")
    write_json(tmp_path / "choices.json", {"choices": [{"study": "addition"}]})
    with pytest.raises(ArtifactError, match="does not hold choices"):
        read_choices(tmp_path / "choices.json")


def test_a_control_task_is_measured_and_never_normalised(desk: Desk) -> None:
    class Controlled(Choosing):
        def questions(self, subset: tuple[str, ...], field: Field) -> Sequence[Question]:
            return [Question(subset, tuple(sorted((*subset, *field.control))))]

        def choose(self, question: Question, curves: Curves) -> Choice:
            assert list(curves.expert > 0) == [True, False]
            return Choice(curves.points[1], at_edge=False)

    ours = setting("ab")
    tasks = {**ours.tasks, "b": replace(ours.tasks["b"], expert=None, vector=None)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "taskgrid.evaluation.plan.asking.get_study", lambda name, options: Controlled()
        )
        plan = make_plan(replace(ours, tasks=tasks), method(), ["a"], LAMBDAS)
        table = desk.run(plan).table
    control = rows_where(table, task="b")
    assert {row["split"] for row in control} == {"val", "test"}
    assert all(row["normalized_accuracy"] is None for row in control)


def test_points_with_coefficients_of_their_own_are_measured_for_their_subset(desk: Desk) -> None:
    own = "a:0.30,b:-0.50"
    result = desk.run(planned("ab", points={"a+b": [own], "b": ["0.10"]}))
    asked = {(r.weights.subset, r.weights.point) for r in desk.asked if r.weights.kind == "merge"}
    assert (("a", "b"), own) in asked
    assert (("b",), "0.10") in asked
    assert (("a",), "0.10") not in asked
    (row,) = rows_where(result.table, point=own, task="a", split="val")
    assert row["scale"] is None


def test_the_choice_is_the_maximum_of_the_curve(desk: Desk) -> None:
    table = desk.run(planned("abc")).table
    for subset, best in (("a", "1.00"), ("a+b", "0.50"), ("a+b+c", "0.25")):
        (chosen,) = {row["point"] for row in rows_where(table, subset=subset, split="test")}
        assert chosen == best


# --- interruption ----------------------------------------------------------------------------------


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, desk: Desk) -> None:
    code = """
        import os, signal, sys
        from taskgrid.evaluation.plan.runner import run_plan
        from taskgrid.store.outcomes import OutcomeStore
        from tests.unit.example_plans import FakeBench
        from tests.unit.evaluation.plan.test_runner import planned

        class Mortal(FakeBench):
            def evaluate(self, requests, advance):
                for count, outcome in enumerate(super().evaluate(requests, advance)):
                    if count == 30:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield outcome

        class Quick(OutcomeStore):
            def writer(self, seconds=0.0):
                return super().writer(seconds)

        run_plan(planned("abc"), Quick(sys.argv[1]), Mortal().open)
    """
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    whole = Desk(tmp_path / "other").run(planned("abc"))
    resumed = desk.run(planned("abc"))
    assert resumed.evaluated == whole.evaluated - 30
    assert resumed.found == whole.found + 30
    write_table(tmp_path / "whole.parquet", whole.table)
    write_table(tmp_path / "resumed.parquet", resumed.table)
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "resumed.parquet").read_bytes()


def test_an_error_keeps_what_was_measured(desk: Desk) -> None:
    class Failing(FakeBench):
        def evaluate(self, requests: Any, advance: Any) -> Any:
            yield from itertools.islice(super().evaluate(requests, advance), 7)
            raise MemoryError

    failing = Failing()
    with pytest.raises(MemoryError):
        run_plan(planned(), desk.store, failing.open)
    desk.run(planned())
    assert {request.key for request in desk.asked}.isdisjoint(
        request.key for request in failing.asked[:7]
    )


def test_a_plan_that_is_known_needs_no_torch(tmp_path: Path) -> None:
    plan = planned("ab")
    plan.write(tmp_path / "plan.json")
    Desk(tmp_path / "store").run(plan)
    code = """
        import sys
        import taskgrid.evaluation.opening.engines, taskgrid.evaluation.opening.files, taskgrid.results
        from taskgrid.evaluation.plan.planner import Plan
        from taskgrid.evaluation.plan.runner import run_plan
        from taskgrid.store.outcomes import OutcomeStore

        def no_bench():
            raise AssertionError("a bench was opened")

        plan = Plan.read(sys.argv[1] + "/plan.json")
        result = run_plan(plan, OutcomeStore(sys.argv[1] + "/store"), no_bench)
        assert result.evaluated == 0
        assert not {"torch", "open_clip"} & set(sys.modules)
    """
    root = Path(__file__).parents[4] / "src"
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
    )


def test_progress_counts_images(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    bench = FakeBench()
    result = run_plan(planned("ab"), desk.store, bench.open, Progress)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    done = [int(line.split(": ")[1].split("/")[0]) for line in lines]
    assert sum(done) == result.images == sum(request.n for request in bench.asked)


# --- files of rows ---------------------------------------------------------------------------------


def test_rows_of_many_files_are_joined_once_each(tmp_path: Path, desk: Desk) -> None:
    desk.reference("ab")
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path in paths:
        write_table(path, desk.reference("ab").table)
    assert collect_rows(paths) == desk.reference("ab").table
    assert collect_rows([]).schema == GRID


def test_files_that_disagree_are_refused(desk: Desk) -> None:
    table = desk.reference("a").table
    other = table.set_column(GRID.get_field_index("key"), "key", pa.array(["x"] * table.num_rows))
    from taskgrid.evaluation.plan.rows import sort_rows

    with pytest.raises(ArtifactError, match="one is out of date"):
        unique_rows(sort_rows(pa.concat_tables([table, other])))


def test_a_damaged_file_of_rows_is_named(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(ArtifactError, match="is missing"):
        read_rows(path)
    write_table(path, desk.reference("a").table)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"rows\.parquet is damaged"):
        read_rows(path)
    write_table(path, pa.table({"x": [1]}))
    with pytest.raises(ArtifactError, match="other columns"):
        read_rows(path)
