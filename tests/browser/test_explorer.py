"""The explorer as a person uses it: by mouse and keyboard; its numbers are those of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from taskgrid.evaluation.tangent.margins import margins_table
from taskgrid.explorer.content import content
from taskgrid.explorer.exact import Margins
from taskgrid.explorer.page import write_page
from taskgrid.store.intervals import wilson
from tests.browser.conftest import NewWindow, Window
from tests.unit.example_margins import MODE, MODEL, SEED, Affine, affine, settings
from tests.unit.example_tables import Example, example

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def tables() -> Example:
    return example(tasks=4, seeds=(0, 1), modes=("lora", "standard"))


@pytest.fixture(scope="module")
def plain(tables: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plain") / "explorer.html"
    methods = [
        {"label": name, "name": name, "options": {}, "gives": "model", "sum": False}
        for name in ("task_arithmetic", "average")
    ]
    known = {"tasks": list(dict.fromkeys(tables.grid["task"])), "methods": methods}
    write_page(file, content(tables.grid, tables.selected, [], {**known, "files": ["my own.yaml"]}))
    return file


@pytest.fixture(scope="module")
def world() -> Affine:
    return affine(tasks=4, images=300)


@pytest.fixture(scope="module")
def tangent(world: Affine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tangent") / "explorer.html"
    table = margins_table(world, world.tasks, world.tasks, 0.0, 1.0).to_pandas()
    margins = [Margins((MODEL, MODE, SEED), table)]
    write_page(file, content(*world.tables(), margins, settings(world.tasks)))
    return file


def opened(window: Window, file: Path) -> Page:
    page = window.open(file)
    page.wait_for_function("window.explorer && explorer.drawn")
    page.evaluate("explorer.drawn")
    return page


def scores(page: Page, split: str = "val") -> dict[str, tuple[int, int]]:
    """Return the counts that the table of numbers shows, by task."""
    found = page.locator("#scores tr[data-task]").evaluate_all(
        "(all, split) => all.map(({dataset: d}) => [d.task, d[split], d[`${split}High`]])", split
    )
    return {task: (int(low), int(high)) for task, low, high in found if low is not None}


def rows_of(grid: pd.DataFrame, split: str = "val", **at: Any) -> dict[str, tuple[int, int]]:
    rows = grid[grid["split"] == split]
    for name, value in at.items():
        rows = rows[rows[name] == value]
    return {row.task: (row.correct, row.correct) for row in rows.itertuples()}


def drawn(page: Page) -> None:
    page.evaluate("explorer.drawn")


def test_it_opens_at_the_chosen_point_and_is_quiet(
    tables: Example, plain: Path, new_window: NewWindow, width: int
) -> None:
    window = new_window(width)
    page = opened(window, plain)
    assert (window.errors, window.left, window.overhang) == ([], [], 0)
    pick = {name: page.input_value(f"#{name}") for name in ("model", "mode", "seed", "study")}
    chosen = tables.selected
    for name, value in pick.items():
        chosen = chosen[chosen[name].astype(str) == value]
    # Of all methods the one that does best on validation.
    row = chosen[chosen["size"] == 4].sort_values("val_accuracy").iloc[-1]
    method = page.locator("#method option:checked").inner_text()
    assert method == row["method"].replace("_", " ")
    assert page.inner_text("#lambda-text") == row["point"]
    at = {name: row[name] for name in ("mode", "seed", "method", "subset", "point")}
    for split in ("val", "test"):
        assert scores(page, split) == rows_of(tables.grid, split, **at)
    mean = page.locator("#scores tr.mean")
    assert float(mean.get_attribute("data-mean-test") or "nan") == pytest.approx(
        row["test_accuracy"], abs=1e-12
    )
    assert f"{100 * row['test_accuracy_low']:.1f}" in mean.inner_text()
    # The figures are there, with a mark for what was chosen.
    assert page.locator("#bars svg").count() == page.locator("#curve svg").count() == 1
    assert page.locator("#curve path[fill='#c00']").count() == 1


def test_every_toggle_and_drag_shows_the_rows_of_the_grid(
    tables: Example, plain: Path, new_window: NewWindow
) -> None:
    page = opened(new_window(1280), plain)
    page.select_option("#mode", "standard")
    page.select_option("#seed", "1")
    page.select_option("#method", label="task arithmetic")
    at: Mapping[str, Any] = {"mode": "standard", "seed": 1, "method": "task_arithmetic"}
    tasks = page.locator("[data-toggle]").evaluate_all(
        "all => all.map((one) => one.dataset.toggle)"
    )
    merged = set(tasks)
    for task in (tasks[1], tasks[3], tasks[1], tasks[0]):
        page.set_checked(f"[data-toggle={task}]", task not in merged)
        merged ^= {task}
        for position in (0, 3, 10):
            page.locator("#lambda").fill(str(position))
            point = page.inner_text("#lambda-text")
            assert point == f"{position / 10:.2f}"
            wanted = rows_of(tables.grid, subset="+".join(sorted(merged)), point=point, **at)
            assert merged <= wanted.keys()
            assert scores(page) == wanted
    drawn(page)


def test_intervals_and_keys_are_those_of_the_grid(
    tables: Example, plain: Path, new_window: NewWindow
) -> None:
    page = opened(new_window(1280), plain)
    page.select_option("#method", label="average")
    rows = tables.grid[(tables.grid["split"] == "val") & (tables.grid["method"] == "average")]
    for shown in page.locator("#scores tr[data-task]").all():
        key = shown.get_attribute("data-val-key")
        (row,) = rows[rows["key"] == key].to_dict("records")
        assert row["task"] == shown.get_attribute("data-task")
        low, high = (float(end) for end in wilson(row["correct"], row["n"]))
        text = f"{100 * row['accuracy']:.1f} {100 * low:.1f} to {100 * high:.1f}"
        assert text in " ".join(shown.inner_text().split())


def test_a_keyboard_is_enough(
    tables: Example, plain: Path, new_window: NewWindow, width: int
) -> None:
    window = new_window(width)
    page = opened(window, plain)
    focused = "document.activeElement.dataset.toggle ?? document.activeElement.id"
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
        if seen[-1] == "copy":
            break
    controls = ["model", "mode", "seed", "method", "study", "lambda", "copy"]
    assert [name for name in seen if name in controls] == controls
    page.select_option("#method", label="task arithmetic")
    page.focus("[data-toggle]")
    first = page.evaluate(focused)
    page.keyboard.press("Space")
    assert first not in page.input_value("#command")
    page.focus("#lambda")
    page.keyboard.press("Home")
    assert page.inner_text("#lambda-text") == "0.00"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#lambda-text") == "0.30"
    subset = "+".join(sorted(set(tables.grid["task"]) - {first}))
    wanted = rows_of(
        tables.grid, mode="lora", seed=0, method="task_arithmetic", subset=subset, point="0.30"
    )
    assert scores(page) == wanted
    assert (window.errors, window.left) == ([], [])


def test_alternatives_lead_to_other_points(
    tables: Example, plain: Path, new_window: NewWindow
) -> None:
    page = opened(new_window(390), plain)
    before = page.input_value("#command")
    row = page.locator("#alternatives tr[data-alternative]", has_text="without").first
    change = float(row.locator("[data-change]").get_attribute("data-change") or "nan")
    was = scores(page)
    row.locator("button").click()
    now, both = scores(page), page.inner_text("[data-is=tasks]").split("+")
    sizes = tables.grid[tables.grid["split"] == "val"].groupby("task")["n"].first()
    means = [sum(counts[task][0] / sizes[task] for task in both) / 3 for counts in (now, was)]
    assert len(both) == 3
    assert change == pytest.approx(means[0] - means[1], abs=1e-12)
    assert page.input_value("#command") != before
    # The address keeps the view.
    again = opened(new_window(390), plain)
    again.goto(page.url)
    again.wait_for_function("window.explorer && explorer.drawn")
    assert scores(again) == now


def test_the_command_names_the_point_and_can_be_copied(plain: Path, new_window: NewWindow) -> None:
    page = opened(new_window(1280), plain)
    page.select_option("#method", label="average")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    point = page.inner_text("#lambda-text")
    subset = page.inner_text("[data-is=tasks]")
    wanted = (
        f"snakemake --cores 1 results/export/small-clip/lora/0/average/{subset}/{point}.safetensors"
        " --configfile 'my own.yaml'"
    )
    assert page.input_value("#command") == wanted
    page.click("#copy")
    page.wait_for_function("document.getElementById('copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == wanted


def test_sliders_of_tangent_models_are_exact_wherever_they_stand(
    world: Affine, tangent: Path, new_window: NewWindow, width: int
) -> None:
    window = new_window(width)
    page = opened(window, tangent)
    assert (window.errors, window.left, window.overhang) == ([], [], 0)
    assert "0 differ" in page.inner_text("#exactness")
    at = {name: float(page.input_value(f"[data-slider={name}]")) for name in world.tasks}
    for name, value in (("a", 0.37), ("c", 1.0), ("b", 0.0), ("d", 0.93), ("a", 0.08)):
        page.locator(f"[data-slider={name}]").fill(str(value))
        at[name] = value
        drawn(page)
        wanted = {task: world.correct(task, at) for task in world.tasks}
        assert scores(page) == {task: (count, count) for task, count in wanted.items()}
    # A task that is not merged has coefficient 0, and is answered all the same.
    page.set_checked("[data-toggle=c]", False)
    merged = {name: value for name, value in at.items() if name != "c"}
    assert scores(page) == {task: (world.correct(task, merged),) * 2 for task in world.tasks}
    point = ",".join(f"{name}:{value:.2f}" for name, value in sorted(merged.items()))
    assert f"/task_arithmetic/a+b+d/{point}.safetensors" in page.input_value("#command")
    assert window.errors == []


def test_the_shared_slider_of_tangent_models_passes_through_the_grid(
    tangent: Path, world: Affine, new_window: NewWindow
) -> None:
    page = opened(new_window(1280), tangent)
    grid, _ = world.tables()
    for value, measured in ((0.5, True), (0.51, False)):
        page.locator("#lambda").fill(str(value))
        found = scores(page)
        assert found == {
            task: (world.correct(task, dict.fromkeys(world.tasks, value)),) * 2
            for task in world.tasks
        }
        keys = page.locator("#scores tr[data-val-key]").count()
        assert keys == (4 if measured else 0)
    page.locator("#lambda").fill("0.5")
    assert scores(page) == rows_of(grid, method="task_arithmetic", subset="a+b+c+d", point="0.50")
