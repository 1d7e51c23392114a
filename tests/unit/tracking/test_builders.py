"""Run records say what the tables say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from taskgrid.tracking.builders import (
    expert_record,
    grid_record,
    point_records,
    scale_step,
    subset_records,
)
from taskgrid.tracking.records import (
    Artifact,
    RunRecord,
)
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
    return example(tasks=3, seeds=(0,), lambdas=("0.00", "0.30", "1.00"), steps=5)


def curve(record: RunRecord, key: str) -> dict[int, float]:
    return {metric.step: metric.value for metric in record.metrics if metric.key == key}


def test_a_merge_has_the_time_of_its_rows_or_none(small: Example) -> None:
    grid = small.grid[small.grid["method"] == "task_arithmetic"]
    selected = small.selected[small.selected["method"] == "task_arithmetic"]
    name = "digits+glyphs"
    spans = {name: {"started": "2026-01-02T03:04:05.000+00:00", "seconds": 1.25}}
    machine = {"batch_size": 128, "device": "cpu", "torch": "2.11.0"}
    records = subset_records(grid, selected, spans=spans, machine=machine)
    made = {record.tags["tasks"]: record for record in records}
    assert made[name].machine == {**machine, "batch_size": "128"}
    assert [r.machine for n, r in made.items() if n != name] == [{}] * (len(made) - 1)
    assert (made[name].started, made[name].seconds) == (spans[name]["started"], 1.25)
    assert {(r.started, r.seconds) for n, r in made.items() if n != name} == {(None, None)}
    plain = {record.tags["tasks"]: record for record in subset_records(grid, selected)}
    assert plain[name].content_key == made[name].content_key


def test_the_scale_is_the_step() -> None:
    assert [scale_step(scale) for scale in (0.0, 0.05, 0.3, -0.3, 1.0)] == [
        0, 50, 300, -300, 1000,
    ]  # fmt: skip


def test_expert_record() -> None:
    record = expert_record(MANIFEST, SETTINGS, HISTORY, 12.5, weights="x/expert.safetensors")
    assert record.point_id == "expert/small-clip/standard/3/signs"
    assert record.params["lr"] == "0.001"
    assert record.params["precision"] == "fp32"
    assert record.params["crop.scale"] == "0.9"
    assert curve(record, "val/accuracy") == {0: 0.25, 4: 0.75}
    assert curve(record, "start/val_accuracy") == {0: 0.25}
    assert curve(record, "final/val_accuracy") == {0: 0.75}
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
    assert record.params["aligner"] == "none" and record.params["aligner.tensors"] == "all"
    assert (record.tags["lineage.base"], record.tags["lineage.source_base"]) == ("b0", "b1")
    other = expert_record({**manifest, "source_base": "b2"}, settings, [])
    assert other.tags["lineage"] != record.tags["lineage"]


def test_subset_record_has_the_curves_and_the_chosen_point(small: Example) -> None:
    records = {r.point_id: r for r in subset_records(small.grid, small.selected, parent="grid/g")}
    assert len(records) == 2 * 7
    record = records["subset/small-clip/standard/0/task_arithmetic/digits+signs"]
    rows = small.grid.query(
        "method == 'task_arithmetic' and subset == 'digits+signs' and in_subset and split == 'val'"
    )
    for key, column in (("mean_accuracy", "accuracy"), ("mean_normalized", "normalized_accuracy")):
        expected = rows.groupby("scale")[column].mean()
        drawn = curve(record, f"val/{key}")
        assert drawn == pytest.approx({scale_step(t): v for t, v in expected.items()})
    one = rows[rows["task"] == "signs"].set_index("scale")["accuracy"]
    assert curve(record, "val/accuracy/signs") == {scale_step(t): v for t, v in one.items()}
    assert not curve(record, "val/accuracy/glyphs")
    choice = small.selected.query("method == 'task_arithmetic' and subset == 'digits+signs'").iloc[
        0
    ]
    assert curve(record, "chosen/scale") == {0: choice["scale"]}
    for key in ("val_normalized", "test_accuracy", "test_normalized"):
        assert curve(record, f"chosen/{key}") == {0: choice[key]}
    test = small.grid.query(
        "method == 'task_arithmetic' and subset == 'digits+signs' and task == 'signs'"
        " and split == 'test'"
    ).set_index("point")["accuracy"]
    assert curve(record, "chosen_tasks/test_accuracy/signs") == {0: test[choice["point"]]}
    assert record.parent == "grid/g"
    assert record.params["size"] == "2" and record.tags["tasks"] == "digits+signs"
    assert record.params["scales"] == "0.00 to 1.00, 3 values"
    # What a plot of the registry shows first.
    assert record.metrics[0].key == "chosen/test_normalized"


def test_test_split_has_a_curve_only_where_its_rows_are_curves(small: Example) -> None:
    (record, *_) = subset_records(small.grid, small.selected)
    assert not curve(record, "test/mean_accuracy")
    rows = small.grid.assign(role="curve")
    (record, *_) = subset_records(rows, small.selected)
    assert len(curve(record, "test/mean_accuracy")) >= 2


def test_missing_numbers_are_left_out(small: Example) -> None:
    grid = small.grid.assign(normalized_accuracy=None)
    selected = small.selected.assign(val_normalized=None, test_normalized=float("nan"))
    (record, *_) = subset_records(grid, selected)
    keys = {metric.key for metric in record.metrics}
    assert "val/mean_accuracy" in keys and "chosen/test_accuracy" in keys
    assert not keys & {"val/mean_normalized", "chosen/val_normalized", "chosen/test_normalized"}


def test_merges_without_a_choice_still_have_curves(small: Example) -> None:
    records = subset_records(small.grid, small.selected.iloc[:0])
    assert len(records) == 14
    assert curve(records[0], "val/mean_accuracy") and not curve(records[0], "chosen/scale")


def test_another_study_has_its_own_names(small: Example) -> None:
    both = pd.concat([small.selected, small.selected.assign(study="negation", point="0.00")])
    (record, *_) = subset_records(small.grid, both)
    assert curve(record, "negation/scale") == {0: 0.0}
    assert record.tags["study"] == "addition,negation"


def test_lineage_follows_the_row_keys(small: Example) -> None:
    before = {r.point_id: r for r in subset_records(small.grid, small.selected)}
    grid = small.grid.copy()
    touched = (grid["subset"] == "digits") & (grid["method"] == "average")
    grid.loc[touched & grid["in_subset"], "key"] += "x"
    after = {r.point_id: r for r in subset_records(grid, small.selected)}
    changed = {name for name in before if before[name].content_key != after[name].content_key}
    assert changed == {"subset/small-clip/standard/0/average/digits"}


def test_options_make_another_point() -> None:
    tables = example(
        tasks=2,
        seeds=(0,),
        methods=("ties",),
        options=('{"density": 0.1}', '{"density": 0.2}'),
        lambdas=("0.00", "1.00"),
        steps=3,
    )
    records = subset_records(tables.grid, tables.selected)
    assert len({record.point_id for record in records}) == 2 * 3
    assert {record.params["ties.density"] for record in records} == {"0.1", "0.2"}


def test_order_of_rows_does_not_matter(small: Example) -> None:
    mixed = small.grid.sample(frac=1, random_state=1)
    one = {r.point_id: r.content_key for r in subset_records(small.grid, small.selected)}
    assert one == {r.point_id: r.content_key for r in subset_records(mixed, small.selected)}
    points = {r.point_id: r.content_key for r in point_records(small.grid)}
    assert points == {r.point_id: r.content_key for r in point_records(mixed)}
    assert (
        grid_record(small.grid, small.selected).content_key
        == grid_record(mixed, small.selected).content_key
    )


def test_point_records_have_their_coefficients_as_parameters(small: Example) -> None:
    points = {record.point_id: record for record in point_records(small.grid)}
    assert len(points) == 7 * 3 + 7 * 2  # average sweeps two lambdas in the example
    point = points["subset/small-clip/standard/0/task_arithmetic/digits/0.30"]
    assert point.parent == "subset/small-clip/standard/0/task_arithmetic/digits"
    assert point.params["point"] == point.params["scale"] == "0.30"
    (value,) = curve(point, "val/mean_accuracy").values()
    rows = small.grid.query(
        "method == 'task_arithmetic' and subset == 'digits' and in_subset and split == 'val'"
    )
    assert value == rows.set_index("point")["accuracy"]["0.30"]


def test_grid_record_has_curves_over_size(small: Example, tmp_path: Path) -> None:
    (tmp_path / "f.png").write_bytes(b"png")
    artifact = Artifact.of(tmp_path / "f.png")
    record = grid_record(small.grid, small.selected, artifacts=[artifact], settings={"seed": 1})
    expected = small.selected.query("method == 'average'").groupby("size")["test_normalized"].mean()
    assert curve(record, "test_normalized/average") == pytest.approx(expected.to_dict())
    zero = small.grid.query("method == 'zeroshot' and split == 'test'")["accuracy"].mean()
    assert curve(record, "test_accuracy/zeroshot") == {0: pytest.approx(zero)}
    assert record.params["subsets"] == "7" and record.params["tasks"] == "digits, glyphs, signs"
    assert record.artifacts == (artifact,)


def test_grid_of_several_models_names_them() -> None:
    tables = example(
        tasks=2, seeds=(0,), models=("a-clip", "bb-clip"), lambdas=("0.00", "1.00"), steps=3
    )
    record = grid_record(tables.grid, tables.selected)
    keys = {metric.key for metric in record.metrics}
    assert {"test_normalized/a-clip/average", "test_accuracy/zeroshot/bb-clip"} <= keys
