"""The page on results says what the tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from taskgrid.config import read_config
from taskgrid.plugins import names
from taskgrid.plugins.cards import merger_card
from tools import results

ROOT = Path(__file__).resolve().parents[3]
RUN = {"model": "m", "mode": "standard", "seed": 0}


def row(method: str, options: str, accuracy: float, **more: Any) -> dict[str, Any]:
    ends = {"": 0.0, "_low": -0.02, "_high": 0.02}
    return {
        **RUN,
        **{"method": method, "options": options, "point": "0.30", "at_edge": False},
        **{f"accuracy{end}": accuracy + by for end, by in ends.items()},
        **{f"normalized{end}": accuracy + 0.1 + by for end, by in ends.items()},
        **{"best": "ties", "p_holm": None, "tied": False, "gives": "model", "sees": "nothing"},
        **{"transductive": False, "prepare_seconds": None, "storage_mb": 0.0},
        **more,
    }


METHODS = pd.DataFrame(
    [
        row("emr", "{}", 0.9, gives="per_task", best="emr", tied=True, storage_mb=4.11),
        row("ties", '{"density":0.1,"trim":"global"}', 0.8, tied=True, prepare_seconds=0.0123),
        row("magmax", "{}", 0.79, tied=True, p_holm=0.4, at_edge=True),
        row("adamerging", "{}", 0.7, p_holm=0.001, transductive=True, sees="images"),
    ]
).astype({"p_holm": float, "prepare_seconds": float})


def grid() -> pd.DataFrame:
    rows = [
        {**RUN, "method": method, "options": "{}", "subset": subset, "task": task, "split": "test"}
        | {"n": 400, "accuracy": accuracy}
        for task in "ab"
        for method, subset, accuracy in (
            ("zeroshot", "", 0.5),
            ("expert", task, 0.95),
            ("expert", {"a": "b", "b": "a"}[task], 0.1),
            *((name, "a+b", 0.7) for name in ("emr", "magmax", "adamerging", "ties")),
        )
    ]
    frame = pd.DataFrame(rows)
    ties = frame["method"] == "ties"
    frame.loc[ties, "options"] = [f'{{"density":{d},"trim":"global"}}' for d in (0.1, 0.2)]
    return frame


def test_a_line_says_what_was_chosen_and_what_came_of_it() -> None:
    made = results.page(METHODS, grid())
    assert (
        "2 tasks, all merged: a, b; 800 test images. Zero-shot 50.0, experts on their own tasks 95.0."
        in made
    )
    lines = [line for line in made.splitlines() if line.startswith("| [")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [cell[0] for cell in cells] == [
        "[`emr`](methods/emr.md) ‡",
        "[`ties`](methods/ties.md)",
        "[`magmax`](methods/magmax.md)",
        "[`adamerging`](methods/adamerging.md) †",
    ]
    assert [cell[1] for cell in cells] == [
        "λ 0.30",
        "density 0.1, λ 0.30",
        "λ 0.30 (edge)",
        "λ 0.30",
    ]
    assert cells[0][2:] == [
        "90.0 (88.0 to 92.0)",
        "100.0 (98.0 to 102.0)",
        *("yes", "", "nothing", "", "4.1"),
    ]
    assert [cell[4:] for cell in cells[1:]] == [
        ["yes", "", "nothing", "0.012", "0"],
        ["yes", "0.40", "nothing", "", "0"],
        ["", "< 0.01", "images", "", "0"],
    ]
    assert "Of methods with one model the best is `ties`, tied with `magmax`." in made
    assert "Of methods with more than one the best is `emr`, and none is tied with it." in made


@pytest.mark.parametrize("preset", ["methods", "clip-vit-b-32-8tasks-methods"])
def test_the_presets_compare_every_method_that_merges_whole_experts(preset: str) -> None:
    config = read_config(ROOT / "config.yaml", ROOT / "presets" / f"{preset}.yaml")
    there = {method.name for method in config.grid.methods}
    cards = {name: merger_card(name) for name in names("merger")}
    own = {name for name, card in cards.items() if card.tasks is None and not card.factors}
    assert there == own, (
        "add it to presets/shared/methods.yaml, and run the preset for docs/results.md"
    )
