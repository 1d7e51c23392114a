"""The doctor: what is there, what will be downloaded, what a person must see to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskgrid.config import Experiment, parse_config
from taskgrid.workflow.doctor import Finding, disk_bytes, examine, report


def experiment(tmp_path: Path, **changes: Any) -> Experiment:
    raw = {
        "models": [{"name": "m", "architecture": "taskgrid-vit-4", "pretrained": "s0"}],
        "tasks": ["handwritten", {"name": "mnist", "path": str(tmp_path)}],
        "finetune": {"recipe": {"steps": 10, "warmup_steps": 1}},
        "grid": {"methods": ["task_arithmetic"], "lambdas": [0, 1]},
        "device": "cpu",
    }
    return Experiment(parse_config({**raw, **changes}))


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.need: finding.state for finding in findings}


def test_what_is_not_in_the_cache_is_downloaded_if_the_hub_answers(tmp_path: Path) -> None:
    asked: list[str] = []

    def reach(address: str) -> bool:
        asked.append(address)
        return True

    found = states(examine(experiment(tmp_path), tmp_path, reach=reach))
    assert found["data of handwritten"] == "ready"
    assert found["data of mnist"] == "download"
    assert found["hub"] == "ready"
    assert asked == ["https://huggingface.co"]


def test_a_hub_out_of_reach_is_missing(tmp_path: Path) -> None:
    findings = examine(experiment(tmp_path), tmp_path, reach=lambda address: False)
    assert states(findings)["hub"] == "missing"
    assert "1 of" in report(findings)


def test_original_files_that_are_put_there_by_hand_are_named(tmp_path: Path) -> None:
    tasks = [{"name": "cars", "path": str(tmp_path)}]
    findings = examine(
        experiment(tmp_path, tasks=tasks, data={"layout": "original"}),
        tmp_path,
        reach=lambda address: True,
    )
    (cars,) = [finding for finding in findings if finding.need == "data of cars"]
    assert cars.state == "missing"
    assert str(tmp_path) in cars.detail
    assert "docs/datasets.md" in cars.detail


def test_ready_made_experts_are_looked_for_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "handwritten").mkdir()
    experts = [{"name": "mine", "format": "open_clip", "source": f"{tmp_path}/{{task}}"}]
    found = states(
        examine(experiment(tmp_path, experts=experts), tmp_path, reach=lambda address: True)
    )
    assert found["expert of handwritten (mine)"] == "ready"
    assert found["expert of mnist (mine)"] == "missing"


def test_experts_of_another_run_are_looked_for_where_it_left_them(tmp_path: Path) -> None:
    spec = {"name": "theirs", "model": "vit", "mode": "standard", "aligner": "none"}
    there, needs = (
        tmp_path / "there",
        [f"expert of {task} (theirs)" for task in ("handwritten", "mnist")],
    )

    def ask() -> dict[str, str]:
        given = experiment(tmp_path, transport=[{**spec, "from": str(there)}])
        return states(examine(given, tmp_path, reach=lambda address: True))

    for name in ("base.json", "base.safetensors"):
        path = there / "models" / "vit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = there / "experts" / "vit" / "standard" / "0" / "mnist"
    folder.mkdir(parents=True)
    (folder / "expert.json").touch()
    assert [ask()[need] for need in needs] == ["missing", "missing"]
    (folder / "expert.safetensors").touch()
    assert [ask()[need] for need in needs] == ["missing", "ready"]
    own = experiment(tmp_path, transport=[{**spec, "from": str(there)}])
    assert not set(needs) & states(examine(own, there, reach=lambda address: True)).keys()


def test_a_registry_that_does_not_answer_is_said(tmp_path: Path) -> None:
    tracking = {"uri": "http://user:secret@tracking.example:5000"}
    findings = examine(
        experiment(tmp_path, tasks=["handwritten"], tracking=tracking),
        tmp_path,
        reach=lambda address: False,
    )
    assert states(findings)["registry"] == "missing"
    assert "secret" not in report(findings)


@pytest.mark.parametrize("limit", [None, 50])
def test_disk_is_estimated_from_the_counts(tmp_path: Path, limit: int | None) -> None:
    one = experiment(tmp_path, tasks=["mnist"], data={"limit": limit})
    images = 70_000 if limit is None else 100
    weights = 3 * 4 * one.parameters("m")
    assert disk_bytes(one) == images * 24 * 24 * 3 + weights


def test_a_full_disk_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    found = states(examine(experiment(tmp_path), tmp_path, reach=lambda address: True))
    assert found["disk"] == "missing"
