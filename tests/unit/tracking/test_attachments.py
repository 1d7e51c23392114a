"""A run's files say what its record says."""

from __future__ import annotations

import csv
import io
from xml.etree import ElementTree

from taskgrid.tracking.attachments import FIGURE, ROW, attachments
from taskgrid.tracking.building.experts import expert_record
from taskgrid.tracking.building.merges import point_records, subset_records
from taskgrid.tracking.records import RunRecord
from tests.unit.example_registry import record
from tests.unit.example_tables import example

TABLES = example(tasks=3, seeds=(0,), lambdas=("0.00", "0.30", "1.00"), steps=5)


def row(of: RunRecord) -> dict[str, str]:
    (found,) = csv.DictReader(io.StringIO(attachments(of)[ROW]))
    return found


def test_a_row_holds_settings_and_single_numbers_and_no_curve() -> None:
    (given, *_) = subset_records(TABLES.grid, TABLES.selected)
    found, choice = row(given), TABLES.selected.iloc[0]
    assert float(found["chosen/test_accuracy"]) == choice["test_accuracy"]
    assert (found["method"], found["merged"]) == (choice["method"], str(choice["size"]))
    assert not [key for key in found if key.startswith("curve/")]


def test_a_name_with_a_comma_or_a_quote_is_one_cell() -> None:
    found = row(record('a, "b"', params={"note": "x,\ny"}))
    assert (found["name"], found["note"]) == ('a, "b"', "x,\ny")


def text_of(figure: str) -> set[str]:
    root = ElementTree.fromstring(figure)
    return {"".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")}


def test_a_merge_has_its_curve_and_its_chosen_point() -> None:
    given = next(
        one
        for one in subset_records(TABLES.grid, TABLES.selected)
        if one.tags["tasks"] == "digits+signs"
    )
    drawn = attachments(given)[FIGURE]
    assert drawn == attachments(given)[FIGURE]
    assert {given.name, "digits", "signs", "chosen, on test"} <= text_of(drawn)
    (bare, *_) = subset_records(TABLES.grid, TABLES.selected.iloc[:0])
    assert "chosen, on test" not in text_of(attachments(bare)[FIGURE])


def test_an_expert_has_the_curves_of_its_training_and_a_ready_made_one_none() -> None:
    settings = {"model": "m", "task": "signs", "mode": "standard", "seed": 0}
    history = [(0, "val/accuracy", 0.2), (1, "train/loss", 2.0), (1, "val/accuracy", 0.6)]
    drawn = attachments(expert_record({}, settings, history))[FIGURE]
    assert {"signs", "loss", "accuracy [%]"} <= text_of(drawn)
    assert set(attachments(expert_record({}, settings, []))) == {ROW}


def test_a_point_has_its_row_and_a_grid_has_files_of_its_own() -> None:
    (point, *_) = point_records(TABLES.grid)
    assert set(attachments(point)) == {ROW}
    assert attachments(record("g", kind="grid")) == {}
