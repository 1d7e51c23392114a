"""Records of merges say what the tables say."""

from __future__ import annotations

import pandas as pd
import pytest

from taskgrid.tracking.building.grids import grid_record
from taskgrid.tracking.building.merges import point_records, scale_step, subset_records
from taskgrid.tracking.records import RunRecord
from tests.unit.example_tables import Example, example


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


def test_subset_record_has_the_curves_and_the_chosen_point(small: Example) -> None:
    records = {r.point_id: r for r in subset_records(small.grid, small.selected, parent="grid/g")}
    assert len(records) == 2 * 7
    record = records["subset/small-clip/standard/0/task_arithmetic/digits+signs"]
    rows = small.grid.query(
        "method == 'task_arithmetic' and subset == 'digits+signs' and in_subset and split == 'val'"
    )
    for key, column in (("mean_accuracy", "accuracy"), ("mean_normalized", "normalized_accuracy")):
        expected = rows.groupby("scale")[column].mean()
        drawn = curve(record, f"curve/val/{key}")
        assert drawn == pytest.approx({scale_step(t): v for t, v in expected.items()})
    one = rows[rows["task"] == "signs"].set_index("scale")["accuracy"]
    assert curve(record, "curve/val/accuracy/signs") == {scale_step(t): v for t, v in one.items()}
    assert not curve(record, "curve/val/accuracy/glyphs")
    choice = small.selected.query("method == 'task_arithmetic' and subset == 'digits+signs'").iloc[
        0
    ]
    assert curve(record, "lambda") == {0: choice["scale"]}
    for key in ("val_normalized", "test_accuracy", "test_normalized", "test_accuracy_low"):
        assert curve(record, f"chosen/{key}") == {0: choice[key]}
    test = small.grid.query(
        "method == 'task_arithmetic' and subset == 'digits+signs' and task == 'signs'"
        " and split == 'test'"
    ).set_index("point")["accuracy"]
    assert curve(record, "chosen_tasks/test_accuracy/signs") == {0: test[choice["point"]]}
    assert record.parent == "grid/g"
    assert curve(record, "size") == {0: 2} and record.tags["tasks"] == "digits+signs"
    assert curve(record, "curve/lambda") == {0: 0.0, 300: 0.3, 1000: 1.0}


def test_names_say_the_method_and_the_size_first(small: Example) -> None:
    names = {record.point_id: record.name for record in subset_records(small.grid, small.selected)}
    point = "subset/small-clip/standard/0/task_arithmetic/digits+signs"
    assert names[point] == "task_arithmetic 2 · digits, signs"


def test_pages_that_compare_runs_begin_with_what_varies(small: Example) -> None:
    # They draw the first parameter by the alphabet against the first metric.
    for record in subset_records(small.grid, small.selected):
        several = len(curve(record, "curve/lambda")) > 1
        assert min(record.params) == ("lambda" if several else "merged")
        assert min(metric.key for metric in record.metrics) == "chosen/test_accuracy"
    grid = small.grid[(small.grid["point"] == "1.00") | (small.grid["split"] == "test")]
    once = grid[grid["method"] == "average"].query("point == '1.00'")
    selected = small.selected.query("method == 'average'").assign(point="1.00")
    params = [record.params for record in subset_records(once, selected)]
    assert params and all(min(each) == "merged" and "lambda" not in each for each in params)


def test_a_run_says_what_it_comes_to_and_how_to_have_it_as_a_file(small: Example) -> None:
    export = "snakemake x/{model}/{mode}/{seed}/mine/{subset}/{point}@{task}.safetensors"
    selected = small.selected.assign(at_edge=small.selected["subset"] == "digits")
    records = {
        record.point_id.partition("/0/")[2]: record
        for record in subset_records(small.grid, selected, export=export)
    }
    choice = selected.query("method == 'average' and subset == 'digits+signs'").iloc[0]
    record = records["average/digits+signs"]
    command = (
        f"snakemake x/small-clip/standard/0/mine/digits+signs/{choice['point']}@digits.safetensors"
    )
    assert record.tags["export"] == command and f"`{command}`" in record.note
    assert f"{100 * choice['test_accuracy']:.1f} % on test" in record.note
    assert f"{100 * choice['test_accuracy_high']:.1f} %)" in record.note
    assert "outside" not in record.note and "outside" in records["average/digits"].note
    (bare, *_) = subset_records(small.grid, selected)
    assert "export" not in bare.tags and "`" not in bare.note


def test_test_split_has_a_curve_only_where_its_rows_are_curves(small: Example) -> None:
    (record, *_) = subset_records(small.grid, small.selected)
    assert not curve(record, "curve/test/mean_accuracy")
    rows = small.grid.assign(role="curve")
    (record, *_) = subset_records(rows, small.selected)
    assert len(curve(record, "curve/test/mean_accuracy")) >= 2


def test_missing_numbers_are_left_out(small: Example) -> None:
    grid = small.grid.assign(normalized_accuracy=None)
    selected = small.selected.assign(val_normalized=None, test_normalized=float("nan"))
    (record, *_) = subset_records(grid, selected)
    keys = {metric.key for metric in record.metrics}
    assert "curve/val/mean_accuracy" in keys and "chosen/test_accuracy" in keys
    assert not keys & {
        "curve/val/mean_normalized",
        "chosen/val_normalized",
        "chosen/test_normalized",
    }


def test_merges_without_a_choice_still_have_curves(small: Example) -> None:
    records = subset_records(small.grid, small.selected.iloc[:0])
    assert len(records) == 14
    assert curve(records[0], "curve/val/mean_accuracy") and not curve(records[0], "lambda")


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
    assert {record.params["option.density"] for record in records} == {"0.1", "0.2"}


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
    assert point.params["point"] == point.params["lambda"] == "0.30"
    (value,) = curve(point, "val/mean_accuracy").values()
    rows = small.grid.query(
        "method == 'task_arithmetic' and subset == 'digits' and in_subset and split == 'val'"
    )
    assert value == rows.set_index("point")["accuracy"]["0.30"]
