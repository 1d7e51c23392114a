"""MLflow's pages open on the runs, and every saved view shows what it promises."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from taskgrid.plugins.resources import resource_path
from taskgrid.tracking.building.experts import expert_record, with_test_scores
from taskgrid.tracking.building.merges import subset_records
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import resolve_target
from tests.browser.conftest import NewWindow, Window
from tests.unit.example_tables import example

pytestmark = pytest.mark.browser

HOST = "127.0.0.1"
PATIENCE = 300.0
SLOW = 120_000
OF_MLFLOW = ("the server responded with a status of 404", "ResizeObserver loop")
"""What its pages say of themselves: they ask who is there, which a server without passwords does not know."""


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the links that `make ui` prints, of a registry whose folder has moved."""
    made, folder = (tmp_path_factory.mktemp(name) for name in ("made", "moved"))
    tables = example(tasks=3, seeds=(0,), lambdas=("0.00", "0.30", "0.60", "1.00"), steps=5)
    settings = {"model": "small-clip", "mode": "standard", "seed": 0}
    history = [
        *((step, "train/loss", 1 / (1 + step)) for step in range(20)),
        *((step, "val/accuracy", step / 40) for step in (0, 10, 20)),
    ]
    trained = [
        expert_record({}, {**settings, "task": task}, history) for task in ("digits", "signs")
    ]
    records = [*trained, *subset_records(tables.grid, tables.selected)]
    target = resolve_target(None, results=made / "results", environ={})
    assert sync_records(with_test_scores(records, tables.grid), target).status == "level"
    (made / "results").rename(folder / "results")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    quiet = {"MLFLOW_TRACKING_URI": "", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "taskgrid.tracking.mlflow_pages"),
            *("--config", str(resource_path("").parent / "config.yaml"), "--port", str(port)),
        ],
        cwd=folder,
        env={**os.environ, **quiet},
        stdout=subprocess.PIPE,
        text=True,
    ) as pages:
        try:
            assert pages.stdout is not None
            yield dict(_said(iter(pages.stdout.readline, "")))
        finally:
            pages.terminate()


def _said(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    deadline = time.monotonic() + PATIENCE
    for line in lines:
        if line.startswith("Ctrl-C"):
            return
        assert time.monotonic() < deadline
        name, _, link = line.strip().rpartition("  ")
        yield name.strip(), link
    raise AssertionError("the pages ended before they said where they are")


EXPECTED = {
    "Runs": ("task_arithmetic 3 · di", "average 1 · "),
    "Chosen points": ("chosen/test_accuracy", "task_arithmetic"),
    "Curves over λ": ("curve/val/mean_normalized", "curve/lambda"),
    "Experts": ("accuracy/test", "digits"),
}
OPENED = [*((name, 1280) for name in EXPECTED), ("Runs", 390), ("Chosen points", 390)]
"""On a telephone MLflow keeps no room for charts beside the list of runs."""

PANELS = ("mlflow.assistant.chat_panel.close", "mlflow_header.toggle_sidebar_button")
"""What closes MLflow's own panels, which leave a narrow window nothing else."""


@pytest.mark.parametrize(("name", "width"), OPENED)
def test_a_page_shows_what_its_link_promises(
    links: dict[str, str], new_window: NewWindow, name: str, width: int
) -> None:
    window = new_window(width)
    page = window.open(links[name])
    for panel in PANELS if width < 1000 else ():
        button = page.locator(f"[data-component-id='{panel}']")
        button.wait_for(state="attached", timeout=SLOW)
        button.dispatch_event("click")
    for text in EXPECTED[name]:
        page.get_by_text(text).first.wait_for(state="attached", timeout=SLOW)
    assert complaints(window) == []


def test_views_are_listed_and_a_run_shows_its_curve(
    links: dict[str, str], new_window: NewWindow
) -> None:
    window = new_window(1280)
    page = window.open(links["Chosen points"])
    # Before the list of views opens, for it takes the focus from all else.
    link = page.get_by_role("link", name="task_arithmetic 3").first
    run = str(link.get_attribute("href", timeout=SLOW)).lstrip("#").partition("?")[0]
    page.get_by_test_id("saved-views-trigger").click(timeout=SLOW)
    page.get_by_text("Curves over λ").first.wait_for(timeout=SLOW)
    page.goto(f"{links['Runs'].partition('#')[0]}#{run}/artifacts/curve.svg")
    # The registry was written elsewhere: its files are found where the folder is now.
    page.wait_for_function("[...document.images].some(one => one.naturalWidth > 400)", timeout=SLOW)
    assert complaints(window) == []


def complaints(window: Window) -> list[str]:
    own = [error for error in window.errors if not any(said in error for said in OF_MLFLOW)]
    return [*own, *window.left]
