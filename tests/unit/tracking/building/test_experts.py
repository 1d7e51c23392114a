"""Records of experts say what their training and the tables say."""

from __future__ import annotations

import pytest

from taskgrid.tracking.building.experts import expert_record, with_test_scores
from taskgrid.tracking.building.merges import subset_records
from taskgrid.tracking.records import RunRecord
from tests.unit.example_tables import Example, example

SETTINGS = {
    "model": "small-clip",
    "task": "signs",
    "mode": "standard",
    "seed": 3,
    "recipe": {"lr": 1e-3, "steps": 4, "precision": "fp32", "crop": {"scale": 0.9}},
}
MANIFEST = {"base": "b0", "split": "s0", "head": "h0", "digest": "d0", "steps": 4}
HISTORY = [(0, "val/accuracy", 0.25), (2, "train/loss", 1.5), (4, "val/accuracy", 0.75)]


@pytest.fixture(scope="module")
def small() -> Example:
    return example(tasks=3, seeds=(0,), lambdas=("0.00", "1.00"), steps=5)


def curve(record: RunRecord, key: str) -> dict[int, float]:
    return {metric.step: metric.value for metric in record.metrics if metric.key == key}


def test_expert_record() -> None:
    record = expert_record(MANIFEST, SETTINGS, HISTORY, 12.5, weights="x/expert.safetensors")
    assert record.point_id == "expert/small-clip/standard/3/signs"
    assert record.params["recipe.lr"] == "0.001"
    assert record.params["recipe.precision"] == "fp32"
    assert record.params["recipe.crop.scale"] == "0.9"
    assert curve(record, "curve/val/accuracy") == {0: 0.25, 4: 0.75}
    assert curve(record, "accuracy/val_start") == {0: 0.25}
    assert curve(record, "accuracy/val") == {0: 0.75}
    assert record.tags["lineage.head"] == "h0"
    assert record.tags["weights"] == "x/expert.safetensors"
    assert [tuple(dataset) for dataset in record.datasets] == [
        ("signs", "s0", "train"),
        ("signs", "s0", "val"),
    ]
    again = expert_record(MANIFEST, SETTINGS, HISTORY, 99.0, weights="x/expert.safetensors")
    assert again.content_key == record.content_key
    other = expert_record({**MANIFEST, "base": "b1"}, SETTINGS, HISTORY)
    assert other.tags["lineage"] != record.tags["lineage"]


def test_a_transported_expert_is_recorded_with_its_way_and_both_bases() -> None:
    settings = {"model": "m", "mode": "theirs", "seed": 0, "task": "a"}
    settings |= {"aligner": "none", "options": {"tensors": "all"}, "source": {"model": "vit"}}
    manifest = {"base": "b0", "source_base": "b1", "digest": "d"}
    record = expert_record(manifest, settings, [])
    assert (
        record.params["transport.aligner"] == "none" and record.params["transport.tensors"] == "all"
    )
    assert (record.tags["lineage.base"], record.tags["lineage.source_base"]) == ("b0", "b1")
    other = expert_record({**manifest, "source_base": "b2"}, settings, [])
    assert other.tags["lineage"] != record.tags["lineage"]


def test_an_expert_has_its_accuracy_on_test_from_the_grid(small: Example) -> None:
    trained = expert_record(MANIFEST, {**SETTINGS, "seed": 0}, HISTORY)
    others = subset_records(small.grid, small.selected)
    (record, *rest) = with_test_scores([trained, *others], small.grid)
    assert rest == others
    rows = small.grid.query("task == 'signs' and split == 'test'")
    own = rows.query("method == 'expert' and subset == 'signs'").iloc[0]
    zero = rows.query("method == 'zeroshot'").iloc[0]
    assert curve(record, "accuracy/test") == {0: own["accuracy"]}
    assert curve(record, "accuracy/test_low") == {0: own["accuracy_low"]}
    assert curve(record, "accuracy/test_high") == {0: own["accuracy_high"]}
    assert curve(record, "accuracy/zeroshot_test") == {0: zero["accuracy"]}
    assert f"{100 * own['accuracy']:.1f} % on test" in record.note
    assert min(metric.key for metric in record.metrics) == "accuracy/test"
    assert min(record.params) == "expert" and record.params["expert"] == "signs"
    # Measured again, it is another version; without rows it is what its training said.
    again = small.grid.assign(key=small.grid["key"] + "x")
    assert with_test_scores([trained], again)[0].content_key != record.content_key
    assert with_test_scores([trained], small.grid[small.grid["task"] != "signs"]) == [trained]
