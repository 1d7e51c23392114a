"""The page on scale says what the configuration plans."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taskgrid.config import Experiment, read_config
from tools import scale

ROOT = Path(__file__).resolve().parents[3]


def test_the_table_of_the_page_is_made_from_the_plan() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert scale.remake(page) == page, "run: python -m tools.scale docs/scale.md"
    assert "| rows of `grid.parquet` |" in page


@pytest.mark.parametrize("preset", ["clip-vit-l-14-20tasks", "clip-vit-b-32-14tasks"])
def test_jobs_are_those_that_snakemake_plans(preset: str) -> None:
    # tests/workflow/test_presets.py holds that page to what Snakemake says.
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| `{preset}` \| (\d+) \|", page, re.MULTILINE)
    experiment = Experiment(read_config(ROOT / "config.yaml", ROOT / "presets" / f"{preset}.yaml"))
    assert found is not None
    assert sum(scale.jobs(experiment).values()) == int(found[1])


def test_rows_and_outcomes_are_counted_subset_by_subset() -> None:
    preset = ROOT / "presets" / "clip-vit-l-14-8tasks.yaml"
    grid = {
        "methods": ["task_arithmetic"],
        "lambdas": [0, 0.5],
        "subsets": {"everything": False, "include": [["mnist"], ["mnist", "dtd"]]},
    }
    experiment = Experiment(read_config(ROOT / "config.yaml", preset, values={"grid": grid}))
    found = scale.scale(experiment)
    assert (found.points, found.merges) == (4, 2)
    # mnist twice and dtd once, each two coefficients on val and one on test; the base and eight experts.
    assert found.rows == 3 * 3 + 2 * 8 * (1 + 8)
    mnist, dtd = ((5000, 10000), (376, 1880))
    assert found.outcomes == pytest.approx(
        sum(1.125 * n + 70 for val, test in (mnist, mnist, dtd) for n in (val, test))
    )
    assert (found.learning, found.learned, found.statistics) == (0, 0, 0)


def test_what_is_learned_counts_the_images_that_the_method_says() -> None:
    preset = ROOT / "presets" / "clip-vit-l-14-8tasks.yaml"
    grid = {
        "methods": [
            {"name": "adamerging", "options": {"steps": 10, "batch_size": 4}},
            "regmean_pp",
        ],
        "subsets": {"everything": False, "include": [["mnist", "dtd"]]},
    }
    experiment = Experiment(read_config(ROOT / "config.yaml", preset, values={"grid": grid}))
    found, one = scale.scale(experiment), scale.forward_operations("ViT-L-14-quickgelu")
    # Forward and back; 256 images of each task once for each of 24 blocks, the embedding and the output.
    assert found.learning == pytest.approx((3 * 10 * 4 * 2 + 256 * 2 * 26) * one)
    assert found.learned == 2 * 4 * experiment.parameters("vit-l-14")
