"""The page holds all it shows, says what it is told, and comes out the same every time."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from taskgrid.plots.frames import REFERENCE_METHODS
from taskgrid.report.page import facts, page
from tests.unit.example_report import FIGURES, settings, write_report
from tests.unit.example_tables import Example, example, task_names

TASKS = task_names(3)
VOID = ("meta", "link", "img", "input")


class Page(HTMLParser):
    """What is opened and closed, what is referred to, and the text in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.refers: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.opened.append(tag)
        self.refers += [(tag, str(value)) for name, value in attrs if name in ("src", "href")]
        self.ids += [str(value) for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def given() -> Example:
    return example(tasks=3, seeds=(0,))


@pytest.fixture(scope="module")
def report(given: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(given, TASKS, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def read(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def test_it_is_whole_and_loads_nothing(read: Page, report: Path) -> None:
    assert read.opened == []
    for tag, target in read.refers:
        assert target.startswith(
            ("data:",) if tag != "a" else ("#", "http", "figures/", "tables/")
        ) or target in ("explorer.html", "provenance.html"), (tag, target)
    assert {target[1:] for _, target in read.refers if target.startswith("#")} <= set(read.ids)
    assert "default-src 'none'" in report.read_text(encoding="utf-8")


def test_every_figure_is_there_the_three_that_matter_first(read: Page, report: Path) -> None:
    shown = [target for tag, target in read.refers if tag == "img"]
    names = ("lambda_curve", "subset_size", "cross_evaluation", "cosine", "training")
    assert sorted(names) == sorted(FIGURES)
    for name, source in zip(names, shown, strict=True):
        file = report.parent / "figures" / f"{name}.png"
        assert base64.b64decode(source.partition(",")[2]) == file.read_bytes()
        assert (report.parent / f"figures/{name}.pdf").exists()
        assert ("a", f"figures/{name}.pdf") in read.refers


def test_captions_are_text_on_the_page(read: Page) -> None:
    words = " ".join(read.text.split())
    for card in settings(TASKS)["figures"]:
        plain = re.sub(r"\*\*|``", "", card["caption"])
        assert plain in words, card["name"]
    assert "Chosen on validation." in words


def test_the_summary_is_not_rounded_twice(report: Path, given: Example) -> None:
    # The file, with its decimals, is not there at all.
    assert not (report.parent / "tables/summary.csv").exists()
    best_of_all = given.selected[given.selected["size"] == 3]["test_accuracy"].max()
    # In the result, among the chosen points; in the summary as mean and minimum, of `all` and of its size.
    assert report.read_text(encoding="utf-8").count(f'data-key="{best_of_all:.6f}"') == 6


def test_no_digest_is_in_sight(read: Page, given: Example) -> None:
    assert not re.search(r"[0-9a-f]{16}", read.text)
    assert given.grid["key"].iloc[0] not in read.text


def test_equal_results_give_equal_bytes_and_names_are_no_markup(
    report: Path, given: Example, tmp_path: Path
) -> None:
    again = write_report(given, TASKS, tmp_path)
    assert again.read_bytes() == report.read_bytes()
    odd = given.selected.assign(model="<b>m</b>")
    text = page(settings(TASKS, [], tables=[]), given.grid.assign(model="<b>m</b>"), odd, [], [])
    assert "<b>m" not in text


def test_the_registry_is_where_it_is_configured(given: Example) -> None:
    local, away = (
        page(settings(TASKS, [], tables=[], tracking=uri), given.grid, given.selected, [], [])
        for uri in (None, "http://tracking.example:5000")
    )
    assert "make ui" in local and "127.0.0.1:5000" in local
    assert 'href="http://tracking.example:5000"' in away and "make ui" not in away


def test_it_says_what_was_measured(given: Example) -> None:
    merges = given.grid[~given.grid["method"].isin(REFERENCE_METHODS)]
    assert facts(given.grid, TASKS) == (
        f"3 tasks · 7 subsets · {merges['point'].nunique()} coefficients · 2 methods · 1 set of experts"
    )
