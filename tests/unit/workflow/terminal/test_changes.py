"""Why jobs run, from the reasons that Snakemake gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskgrid.workflow.terminal.changes import Present, settings_changed, why
from taskgrid.workflow.terminal.jobs import Job
from taskgrid.workflow.terminal.points import changes_of
from tests.unit.workflow.example_experiment import experiment
from tests.unit.workflow.terminal.example_jobs import (
    MISSING,
    changed,
    evaluation,
    finetune,
    job,
    plan,
    updated,
    write_plan,
)

THERE = Present(
    {
        "model": frozenset({"m"}),
        "mode": frozenset({"standard"}),
        "seed": frozenset({"0"}),
        "task": frozenset({"textures", "mnist"}),
        "method": frozenset({"task_arithmetic"}),
        "study": frozenset(),
        "figure": frozenset({"heatmap"}),
    }
)


def said(*jobs: Job) -> tuple[str, ...]:
    return why(jobs, {}, THERE)


def of_block(folder: Path, **changes: Any) -> tuple[str, ...]:
    write_plan(folder, experiment())
    jobs = [plan(reason="Params have changed"), evaluation(reason=updated("results/merge/p.json"))]
    return why(jobs, changes_of(experiment(**changes), jobs, folder), THERE)


def test_a_first_run_needs_no_more_reasons() -> None:
    empty = Present({name: frozenset() for name in THERE.names})
    assert why([finetune("mnist")], {}, empty) == ("nothing is there yet",)


def test_lambdas_and_studies_are_told_by_what_was_added_and_removed(tmp_path: Path) -> None:
    assert of_block(tmp_path, grid={"lambdas": [0, 0.3, 0.35, 1]}) == ("lambda 0.35 was added",)
    assert of_block(tmp_path, grid={"lambdas": [0, 0.5, 0.6]}) == (
        "lambdas 0.50, 0.60 were added",
        "lambdas 0.30, 1.00 were removed",
    )
    more = ["addition", {"name": "addition", "label": "again"}]
    assert of_block(tmp_path, studies=more) == ("study again was added",)


def test_options_are_told_with_the_method(tmp_path: Path) -> None:
    methods = [{"name": "task_arithmetic", "options": {"normalize": True}}]
    assert of_block(tmp_path, grid={"methods": methods}) == (
        "task_arithmetic.options.normalize is True and was False",
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"task": "handwritten"}, "task handwritten is new"),
        ({"model": "m", "mode": "lora", "seed": "1"}, "mode lora is new"),
        ({"model": "m", "mode": "standard", "seed": "1", "task": "x"}, "seed 1 is new"),
        ({"method": "ties"}, "method ties is new"),
        ({"study": "shapley", "table": "values"}, "study shapley is new"),
    ],
)
def test_what_is_missing_is_told_by_the_outermost_new_name(
    labels: dict[str, str], words: str
) -> None:
    assert said(job("rule", "rule/x", MISSING, **labels)) == (words,)


def test_a_file_that_went_is_named_and_what_follows_is_not() -> None:
    follows = job("figure", "figure/heatmap", f"{MISSING}; {updated('x')}", figure="heatmap")
    assert said(job("grid", "grid"), follows) == ("results/x.json is missing",)


def test_settings_are_told_by_their_place() -> None:
    before = {"recipe": {"steps": 300, "lr": 7e-05}, "task": "a", "tasks": ["a"]}
    now = {"recipe": {"steps": 400, "lr": 7e-05}, "task": "a", "tasks": ["a", "b"]}
    assert said(finetune("mnist", changed(before, now))) == (
        "recipe.steps is 400 and was 300",
        "task b was added",
    )
    assert list(settings_changed("<nothing exclusive>", "'{\"a\":1}'")) == []
    assert list(settings_changed('\'{"a":', "'{\"a\":1}'")) == []


def test_code_is_told_once_by_the_modules_that_differ() -> None:
    reason = (
        "Params have changed since last execution: Union of exclusive params before and now across all "
        "output: before: {'taskgrid.a': '0a','taskgrid.b.c': '0b'} "
        "now: {'taskgrid.a': '0a','taskgrid.b.c': '0c'} "
    )
    assert said(finetune("mnist", reason), finetune("textures", reason)) == ("code changed: b.c",)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Updated input files: data/a.npz, data/b.npz", "data/a.npz, data/b.npz changed"),
        ("Forced execution", "it was asked for by --force"),
        ("Code has changed since last execution", "the command of a rule changed"),
        ("Incomplete output files: results/x", "an earlier run was interrupted"),
        (
            "Software environment definition has changed since last execution",
            "a conda environment changed",
        ),
        ("Set of input files has changed since last execution", "other inputs are asked for"),
    ],
)
def test_other_reasons_are_said_in_plain_words(reason: str, words: str) -> None:
    assert said(job("grid", "grid", reason)) == (words,)


def test_what_is_there_is_seen_in_results(tmp_path: Path) -> None:
    for name in (
        *("models/m/base.json", "experts/m/standard/0/a/expert.json", "splits/24px/a.json"),
        *("merge/m/standard/0/ties/00000.json", "figures/heatmap.png", "eval/m/posthoc/1/x/y"),
    ):
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True)
        path.touch()
    names = Present.look(tmp_path).names
    assert names["model"] == {"m"} and names["task"] == {"a"} and names["method"] == {"ties"}
    assert names["mode"] == {"standard", "posthoc"} and names["seed"] == {"0", "1"}
    assert names["figure"] == {"heatmap"} and names["study"] == set()
