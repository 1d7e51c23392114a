"""The record of a grid says what the tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgrid.tracking.building.grids import grid_record
from taskgrid.tracking.records import Artifact, RunRecord
from tests.unit.example_tables import Example, example


@pytest.fixture(scope="module")
def small() -> Example:
    return example(tasks=3, seeds=(0,), lambdas=("0.00", "0.30", "1.00"), steps=5)


def curve(record: RunRecord, key: str) -> dict[int, float]:
    return {metric.step: metric.value for metric in record.metrics if metric.key == key}


def test_grid_record_has_curves_over_size(small: Example, tmp_path: Path) -> None:
    (tmp_path / "f.png").write_bytes(b"png")
    artifact = Artifact.of(tmp_path / "f.png")
    record = grid_record(small.grid, small.selected, artifacts=[artifact], settings={"seed": 1})
    expected = small.selected.query("method == 'average'").groupby("size")["test_normalized"].mean()
    assert curve(record, "curve/test_normalized/average") == pytest.approx(expected.to_dict())
    zero = small.grid.query("method == 'zeroshot' and split == 'test'")["accuracy"].mean()
    assert curve(record, "accuracy/test_zeroshot") == {0: pytest.approx(zero)}
    assert record.params["subsets"] == "7" and record.params["tasks"] == "digits, glyphs, signs"
    assert record.artifacts == (artifact,)


def test_grid_of_several_models_names_them() -> None:
    tables = example(
        tasks=2, seeds=(0,), models=("a-clip", "bb-clip"), lambdas=("0.00", "1.00"), steps=3
    )
    record = grid_record(tables.grid, tables.selected)
    keys = {metric.key for metric in record.metrics}
    assert {"curve/test_normalized/a-clip/average", "accuracy/test_zeroshot/bb-clip"} <= keys


def test_options_are_named_where_a_method_is_run_with_several() -> None:
    one, two = '{"density": 0.1, "trim": "global"}', '{"density": 0.2, "trim": "global"}'

    def series(*options: str) -> set[str]:
        tables = example(
            tasks=2,
            seeds=(0,),
            methods=("ties",),
            options=options,
            lambdas=("0.00", "1.00"),
            steps=3,
        )
        record = grid_record(tables.grid, tables.selected)
        return {key for key, _, _ in record.metrics if key.startswith("curve/test_accuracy/")}

    assert series(one) == {"curve/test_accuracy/ties"}
    assert series(one, two) == {
        f"curve/test_accuracy/ties density {density} trim global" for density in (0.1, 0.2)
    }
