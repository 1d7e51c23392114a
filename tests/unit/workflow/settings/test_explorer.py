"""What the explorer is told: names to export by, which methods are plain sums, ends of sliders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskgrid.workflow import stages as settings
from tests.unit.workflow.example_experiment import RUN, experiment


def test_methods_are_told_by_label_options_and_what_they_give() -> None:
    methods = [
        "task_arithmetic",
        {"name": "task_arithmetic", "label": "mean", "options": {"normalize": True}},
        {"name": "emr", "lambdas": [1]},
    ]
    page = json.loads(settings.explorer.page(experiment(grid={"methods": methods}), []))
    told = {one["label"]: (one["name"], one["gives"], one["sum"]) for one in page["methods"]}
    assert told == {
        "task_arithmetic": ("task_arithmetic", "model", True),
        "mean": ("task_arithmetic", "model", False),
        "emr": ("emr", "per_task", False),
    }
    assert page["tasks"] == ["textures", "mnist", "handwritten"]


def test_the_page_is_made_again_when_its_own_files_change() -> None:
    page = json.loads(settings.explorer.page(experiment(), []))
    assert {"page.html", "page.css", "page.js"} < set(page["assets"])
    assert len(set(page["assets"].values())) == len(page["assets"])


def test_files_are_named_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / "mine.yaml", "presets/theirs.yaml"]
    page = json.loads(settings.explorer.page(experiment(), files))
    assert page["files"] == ["mine.yaml", "presets/theirs.yaml"]


def test_margins_hold_wherever_a_lambda_of_the_configuration_is() -> None:
    for lambdas, ends in (([0, 0.3, 1], (0, 1)), ([-0.5, 2], (-0.5, 2)), ([0.2, 0.4], (0, 1))):
        given = experiment(grid={"lambdas": lambdas}, evaluation={"posthoc": "standard"})
        told = json.loads(settings.explorer.margins(given, **{**RUN, "mode": "posthoc"}))
        assert (told["low"], told["high"]) == ends
        assert told["moving"] == told["tasks"] == ["textures", "mnist", "handwritten"]


def test_only_runs_of_tangent_models_have_margins_and_only_where_vectors_are_added_up() -> None:
    given = experiment(evaluation={"posthoc": "standard"})
    file = "results/eval/m/posthoc/0/margins.parquet"
    assert settings.explorer.margin_files(given) == [file]
    averaged = experiment(evaluation={"posthoc": "standard"}, grid={"methods": ["average"]})
    assert settings.explorer.margin_files(averaged) == []
    assert json.loads(settings.explorer.listing(given, [file])) == {
        "margins": [{"model": "m", "mode": "posthoc", "seed": 0, "path": file}]
    }
    assert json.loads(settings.explorer.listing(experiment(), [])) == {"margins": []}
