"""Which points are new, against plans of what was asked before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskgrid.workflow.terminal.points import changes_of, images_of, words_of
from tests.unit.workflow.example_experiment import BLOCK, experiment
from tests.unit.workflow.terminal.example_jobs import evaluation, plan, updated, write_plan

KEY = tuple(BLOCK.values())
VECTOR = "results/vectors/m/standard/0/mnist.json"
UPDATED = updated("results/merge/m/standard/0/task_arithmetic/00000.json")


def new(folder: Path, reason: str | None = None, **changes: Any) -> set[tuple[str, str]]:
    """Return the new points of a block that was planned for the plain experiment."""
    write_plan(folder, experiment())
    jobs = [evaluation(reason=UPDATED)]
    jobs += [plan(reason=reason)] if reason is not None else []
    return set(changes_of(experiment(**changes), jobs, folder)[KEY].new)


def grid(**values: Any) -> dict[str, Any]:
    return {"grid": values}


# Three tasks; the block holds the numbers 0 to 3: textures, mnist, and both.
SUBSETS = {"textures", "mnist", "mnist+textures"}


def test_a_lambda_that_is_added_is_a_point_of_every_subset(tmp_path: Path) -> None:
    more = grid(lambdas=[0, 0.3, 0.35, 1])
    assert new(tmp_path, "anything", **more) == {(subset, "0.35") for subset in SUBSETS}


def test_a_lambda_that_is_removed_makes_no_point(tmp_path: Path) -> None:
    assert new(tmp_path, "anything", **grid(lambdas=[0, 1])) == set()


def test_a_point_of_its_own_is_new_for_its_subset(tmp_path: Path) -> None:
    more = grid(points=[{"mnist": 0.4, "textures": 0.2}])
    assert {subset for subset, _ in new(tmp_path, "anything", **more)} == {"mnist+textures"}


def test_a_vector_that_is_new_makes_the_points_of_its_subsets_new(tmp_path: Path) -> None:
    found = new(tmp_path, updated(VECTOR))
    assert {subset for subset, _ in found} == {"mnist", "mnist+textures"}
    assert len(found) == 2 * 3


@pytest.mark.parametrize(
    "reason",
    [
        "before: {'taskgrid.merging.seam': '0a'} now: {'taskgrid.merging.seam': '0b'}",
        "Forced execution",
        updated("results/models/m/base.json"),
        None,  # the plan stands, and its evaluation is made again
    ],
)
def test_other_code_or_another_base_makes_all_points_new(
    tmp_path: Path, reason: str | None
) -> None:
    assert len(new(tmp_path, reason)) == 3 * 3


def test_other_options_make_all_points_new(tmp_path: Path) -> None:
    methods = [{"name": "task_arithmetic", "options": {"normalize": True}}]
    assert len(new(tmp_path, "anything", **grid(methods=methods))) == 3 * 3


def test_without_a_plan_or_with_a_damaged_one_all_points_are_new(tmp_path: Path) -> None:
    jobs = [plan(), evaluation()]
    assert len(changes_of(experiment(), jobs, tmp_path)[KEY].new) == 3 * 3
    write_plan(tmp_path, experiment())
    path = next(tmp_path.rglob("00000.json"))
    path.write_text(path.read_text().replace("0.30", "0.31"))
    assert len(changes_of(experiment(), jobs, tmp_path)[KEY].new) == 3 * 3


def test_words_are_of_files_that_are_new() -> None:
    reason = f"Set of input files has changed; Updated input files: data/x.csv; {updated(VECTOR)}"
    assert {"mnist", "x", "data"} <= words_of(reason)
    assert words_of("Missing output files: results/a/b.json") == frozenset()


def test_images_are_those_of_validation_and_once_those_of_test(tmp_path: Path) -> None:
    counts = {"textures": (10, 100), "mnist": (20, 200), "handwritten": (40, 400)}
    write_plan(tmp_path, experiment())
    one_more = experiment(grid={"lambdas": [0, 0.3, 0.35, 1]})
    jobs = [plan(), evaluation()]
    first = changes_of(one_more, jobs, tmp_path / "empty")[KEY]
    later = changes_of(one_more, [plan(reason="anything"), evaluation()], tmp_path)[KEY]
    # textures, mnist, and both of them: 60 images of validation a lambda, 600 of test.
    assert images_of(later, counts, False, one_more.tasks) == 60
    assert images_of(first, counts, False, one_more.tasks) == 4 * 60 + 600
    assert images_of(later, counts, True, one_more.tasks) == 3 * 70
