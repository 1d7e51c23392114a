"""The report in a browser: quiet, readable on a desk and a telephone, with the numbers of its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.browser.conftest import NewWindow
from tests.unit.example_report import best, write_report
from tests.unit.example_tables import example, task_names

pytestmark = pytest.mark.browser

TASKS = task_names(6)
FIGURES = ("lambda_curve", "cosine")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = example(tasks=6, seeds=(0,), methods=("task_arithmetic", "average", "ties"))
    return write_report(given, TASKS, tmp_path_factory.mktemp("results"), FIGURES)


def test_it_is_quiet_asks_for_nothing_and_fits(
    report: Path, new_window: NewWindow, width: int
) -> None:
    window = new_window(width)
    page = window.open(report)
    page.wait_for_load_state("networkidle")
    assert page.locator("img").count() == len(FIGURES)
    loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert page.evaluate(loaded)
    assert (window.errors, window.left, window.overhang) == ([], [], 0)


def test_the_first_thing_one_sees_is_the_result(
    report: Path, new_window: NewWindow, width: int
) -> None:
    page = new_window(width).open(report)
    selected = pd.read_parquet(report.parent / "tables" / "selected.parquet")
    chosen = best(selected, len(TASKS))
    table = page.locator("#result table")
    rows = table.locator("tbody tr:not(.reference)")
    assert rows.count() == len(chosen)
    for place, point in enumerate(chosen.itertuples()):
        cells = rows.nth(place).locator("th, td")
        assert cells.nth(0).inner_text() == point.method.replace("_", " ")
        assert cells.nth(1).inner_text().split()[0] == point.point
        low, high = 100 * point.test_accuracy_low, 100 * point.test_accuracy_high
        assert (
            cells.nth(2).inner_text() == f"{100 * point.test_accuracy:.1f} {low:.1f} to {high:.1f}"
        )
        assert cells.nth(3).inner_text().split()[0] == f"{100 * point.test_normalized:.1f}"
    # Its best row is on the first screen, and no caption waits for a click.
    assert rows.first.bounding_box()["y"] < 900
    assert all(caption.is_visible() for caption in page.locator("figcaption").all())


def test_first_columns_stay_when_the_others_move(
    report: Path, new_window: NewWindow, width: int
) -> None:
    page = new_window(width).open(report)
    box = page.locator("#tables .table").first
    first, last = (box.locator(f"tbody tr:first-child > :{end}-child") for end in ("first", "last"))
    before = first.bounding_box()["x"], last.bounding_box()["x"]
    box.evaluate("(box) => { box.scrollLeft = 10000; box.scrollTop = 300 }")
    moved = box.evaluate("(box) => box.scrollLeft")
    assert width > 1000 or moved > 100
    assert first.bounding_box()["x"] == pytest.approx(before[0], abs=1)
    assert last.bounding_box()["x"] == pytest.approx(before[1] - moved, abs=1)
    top = box.bounding_box()["y"]
    assert box.locator("thead th").first.bounding_box()["y"] == pytest.approx(top, abs=2)


def test_rows_are_sorted_and_filtered_by_the_keyboard(
    report: Path, new_window: NewWindow, width: int
) -> None:
    page = new_window(width).open(report)
    article = page.locator("#tables article").first
    scores = article.locator("thead th", has_text="test accuracy").first
    place = scores.evaluate("(head) => head.cellIndex")
    scores.locator("button").focus()
    for order, descending in (("descending", True), ("ascending", False)):
        page.keyboard.press("Enter")
        assert scores.get_attribute("aria-sort") == order
        keys = article.locator("tbody tr").evaluate_all(
            f"(rows) => rows.map((row) => Number(row.cells[{place}].dataset.key))"
        )
        assert len(keys) == 63 * 3 and keys == sorted(keys, reverse=descending)
    article.locator("input").focus()
    page.keyboard.type("ties digits + glyphs")
    shown = article.locator("tbody tr:visible").all_inner_texts()
    assert len(shown) == 2**4
    assert all("ties" in text and "glyphs" in text for text in shown)
