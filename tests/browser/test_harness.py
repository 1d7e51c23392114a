"""The harness sees what the tests of pages rely on: errors, requests that leave, pages too wide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import NewWindow

pytestmark = pytest.mark.browser


def page(folder: Path, body: str) -> Path:
    file = folder / "page.html"
    file.write_text(f"<!doctype html><title>page</title><link rel='icon' href='data:,'>{body}")
    return file


def test_a_quiet_page_has_nothing_to_complain_of(
    tmp_path: Path, new_window: NewWindow, width: int
) -> None:
    window = new_window(width)
    opened = window.open(page(tmp_path, "<p>quiet</p><script>fetch('data:,x')</script>"))
    assert opened.inner_text("p") == "quiet"
    assert (window.errors, window.left, window.overhang) == ([], [], 0)


def test_errors_and_what_leaves_are_recorded_and_not_answered(
    tmp_path: Path, new_window: NewWindow
) -> None:
    (tmp_path / "beside.js").write_text("")
    window = new_window(390)
    body = """<div style="width: 400px">wide</div>
    <script src="beside.js"></script>
    <script src="http://192.0.2.1/away.js"></script>
    <script>console.error("said"); throw new Error("thrown")</script>"""
    opened = window.open(page(tmp_path, body))
    opened.wait_for_load_state("networkidle")
    assert [url.rpartition("/")[2] for url in window.left] == ["beside.js", "away.js"]
    assert "said" in window.errors
    assert any("thrown" in error for error in window.errors)
    assert window.overhang > 0
