"""The page on reproducing the papers says what the data say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taskgrid.analysis.literature import lineages, read_numbers
from taskgrid.config import Experiment, read_config
from tools import reproduction

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "reproduce.md"
SHARED = "<!-- made: {} -->\n<!-- end -->"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_tables_of_the_page_are_made_from_the_data() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert reproduction.remake(page) == page, "run: python -m tools.reproduction docs/reproduce.md"
    blocks = re.findall(r"<!-- made: (.*?) -->\n(.*?)<!-- end -->", page, re.S)
    assert page.count("<!-- made:") == page.count("<!-- end -->") == len(blocks) > 15
    for what, table in blocks:
        assert len(table.splitlines()) > 2, what  # a head, and something below it
    shown = " ".join(what for what, _ in blocks)
    assert all(lineage in shown for lineage in lineages())


def test_numbers_in_the_text_are_published_ones() -> None:
    text = re.sub(r"<!-- made:.*?<!-- end -->", "", PAGE.read_text(encoding="utf-8"), flags=re.S)
    printed = set(read_numbers(tuple(lineages()))["printed"])
    decimals = set(re.findall(r"\b\d\d\.\d{1,2}(?= %)", text))
    assert decimals == {"97.98", "79.20"}
    assert decimals <= printed


def test_a_table_holds_what_was_printed_and_says_where() -> None:
    made = reproduction.remake(SHARED.format("tasks tangent clip-vit-b-32 zeroshot"))
    head, _, line = made.splitlines()[1:4]
    assert head.startswith("| ViT-B/32 | sun397 | cars | resisc45 | eurosat |")
    assert line == (
        "| zero-shot | 63.18 | 59.73 | 60.65 | 45.19 | 31.61 | 32.56 | 48.25 | 43.99 | 48.14 "
        "| fredzzhang/atlas 557d7fb |"
    )
    means = reproduction.remake(SHARED.format("means task_vectors"))
    assert "| task arithmetic, tuned on val |  |  | - / 91.2 | - / 98.9 | Ilharco" in means
    bugged = reproduction.remake(SHARED.format("means tall_v1"))
    assert bugged.count("DTD was tested on images that its expert was trained on") == 8
    control = reproduction.remake(SHARED.format("negation tangent"))
    assert "| 24.0 / 60.7 | 20.3 / 64.7 | 18.4 / 72.4 |" in control


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown table to make 'pie'; there are: tasks"):
        reproduction.remake(SHARED.format("pie"))


@pytest.mark.parametrize(("model", "pflop"), [("B-32", 0.77), ("B-16", 3.1), ("L-14", 14.2)])
def test_a_forward_pass_costs_what_others_count(model: str, pflop: float) -> None:
    # Counted elsewhere for the 87,433 test images of the eight tasks.
    operations = reproduction.forward_operations(f"ViT-{model}-quickgelu")
    assert 87_433 * operations / 1e15 == pytest.approx(pflop, rel=0.02)


def test_the_cost_of_the_eight_tasks_in_closed_form() -> None:
    experiment = Experiment(read_config("config.yaml", "presets/clip-vit-b-32-8tasks.yaml"))
    found = reproduction.cost(experiment)
    forward = reproduction.forward_operations("ViT-B-32-quickgelu")
    # Sums of the protocol's table: 20,429 images of validation, 87,433 of test, 2.09 M in training.
    assert found.images == 20_429 + 87_433 + 214_422
    assert found.training / 3 / forward == pytest.approx(2.09e6, rel=0.01)
    # Each task is in half of the subsets; 20 lambdas beside 0 on validation, and one of `average`.
    swept = 128 * (20 + 1) * 20_429 + 2 * 128 * 87_433
    reference = (1 + 8) * (20_429 + 87_433)
    assert found.grid / forward == pytest.approx(swept + reference)
    assert found.disk == pytest.approx(322_284 * 150_528 + 17 * 4 * 87.8e6, rel=0.01)


def test_ready_made_experts_need_no_training() -> None:
    hub = Experiment(read_config("config.yaml", "presets/clip-vit-b-32-8tasks-hub.yaml"))
    assert reproduction.cost(hub).training == 0
