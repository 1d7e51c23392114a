"""Experts and merges become registered models, once for the same weights."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from taskgrid.errors import ArtifactError, TrackingError
from taskgrid.store.atomic import write_json
from taskgrid.tracking.building.experts import expert_record, with_test_scores
from taskgrid.tracking.building.merges import subset_records
from taskgrid.tracking.models import RegisteredModel, registered_models
from taskgrid.tracking.records import RunRecord
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import Target
from tests.unit.example_registry import cut_off_after
from tests.unit.example_tables import example

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.tracking import MlflowClient  # isort: skip

TABLES = example(tasks=2, seeds=(0,), methods=("ties",), lambdas=("0.00", "1.00"), steps=3)
ALL = "subset/small-clip/standard/0/ties/digits+glyphs"
EXPERT = "expert/small-clip/standard/0/digits"
NAME = "taskgrid.small-clip.ties"


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    settings = {"model": "small-clip", "task": "digits", "mode": "standard", "seed": 0}
    trained = expert_record({"base": "b0"}, settings, [])
    merged = subset_records(TABLES.grid, TABLES.selected)
    assert ALL in {record.point_id for record in merged}
    return with_test_scores([trained, *merged], TABLES.grid)


def written(folder: Path, point_id: str, digest: str = "d1") -> Path:
    about = {"name": f"small-clip.{point_id.split('/')[-2]}", "record": point_id, "digest": digest}
    about |= {"architecture": "vit", "pretrained": "s0", "point": "1.00"}
    config = folder / point_id / "open_clip_config.json"
    write_json(config, {"model_cfg": {"embed_dim": 8}, "taskgrid": about})
    (config.parent / "open_clip_model.safetensors").write_bytes(digest.encode())
    return config


def test_a_card_has_numbers_with_intervals_lineage_and_how_to_load(
    records: list[RunRecord], tmp_path: Path
) -> None:
    configs = [written(tmp_path, ALL), written(tmp_path, EXPERT)]
    merge, expert = registered_models(configs, records, "taskgrid")
    choice = TABLES.selected.query("subset == 'digits+glyphs'").iloc[0]
    shares = [choice[f"test_accuracy{end}"] for end in ("", "_low", "_high")]
    value, low, high = (f"{100 * share:.1f} %" for share in shares)
    assert f"| mean over its tasks | {value} | {low} to {high} |" in merge.card
    rows = TABLES.grid[(TABLES.grid["split"] == "test") & (TABLES.grid["task"] == "glyphs")]
    at = rows[(rows["subset"] == "digits+glyphs") & (rows["point"] == choice["point"])].iloc[0]
    low, high = (f"{100 * at[key]:.1f} %" for key in ("accuracy_low", "accuracy_high"))
    assert f"| glyphs | {100 * at['accuracy']:.1f} % | {low} to {high} |" in merge.card
    assert f'download_artifacts("models:/{NAME}@current")' in merge.card
    assert "- weights: `d1`" in merge.card and "- base: `vit, s0`" in merge.card
    assert "- lineage.base: `b0`" in expert.card and "| digits | " in expert.card
    assert [Path(file.path).name for file in merge.files] == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]


def test_what_is_not_known_is_refused(records: list[RunRecord], tmp_path: Path) -> None:
    other = written(tmp_path, "expert/small-clip/standard/1/digits")
    with pytest.raises(TrackingError, match="no record is of the model"):
        registered_models([other], records, "taskgrid")
    other.write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(ArtifactError, match="delete it and run again"):
        registered_models([other], records, "taskgrid")


def test_models_are_registered_once_for_their_weights(
    records: list[RunRecord], target: Target, tmp_path: Path
) -> None:
    def level(model: RegisteredModel) -> int:
        report = sync_records(records, target, models=[model])
        assert report.status == "level"
        return report.models

    client = MlflowClient(target.uri)
    (model,) = registered_models([written(tmp_path / "a", ALL)], records, "taskgrid")
    assert (level(model), level(model)) == (1, 0)
    (version,) = client.search_model_versions(f"name = '{NAME}'")
    assert version.description == model.card and version.tags["digest"] == "d1"
    run = client.get_run(version.run_id)
    assert run.data.tags["point_id"] == ALL
    folder = tmp_path / "mlartifacts" / version.source.removeprefix("mlflow-artifacts:/")
    assert (folder / "open_clip_model.safetensors").read_bytes() == b"d1"
    assert (folder / "README.md").read_text() == model.card
    assert version.source == f"{run.info.artifact_uri}/model"
    # Other numbers of the same weights, then other weights.
    assert level(dataclasses.replace(model, card="new card")) == 0
    (version,) = client.search_model_versions(f"name = '{NAME}'")
    assert version.description == "new card" == (folder / "README.md").read_text()
    (other,) = registered_models([written(tmp_path / "b", ALL, "d2")], records, "taskgrid")
    assert level(other) == 1
    assert client.get_model_version_by_alias(NAME, "current").tags["digest"] == "d2"
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2
    assert level(model) == 0
    assert client.get_model_version_by_alias(NAME, "current").tags["digest"] == "d1"


def test_a_registration_that_was_cut_off_is_completed(
    records: list[RunRecord], target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = registered_models([written(tmp_path, ALL)], records, "taskgrid")
    steps = ("create_registered_model", "create_model_version", "set_registered_model_alias")
    for name in steps:
        with monkeypatch.context() as patch:
            cut_off_after(patch, name)
            assert sync_records(records, target, models=models).status == "delayed"
    assert sync_records(records, target, models=models).models == 0
    client = MlflowClient(target.uri)
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1
    assert client.get_model_version_by_alias(NAME, "current").tags["digest"] == "d1"
