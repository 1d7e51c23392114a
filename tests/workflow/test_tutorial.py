"""The tutorial, to the letter: its blocks are run in order, in a checkout of their own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.unit.docs.blocks import DOCS, blocks
from tests.workflow.conftest import Checkout

pytestmark = pytest.mark.tutorial

PAGE = DOCS / "tutorial.md"


def python(checkout: Checkout, code: str) -> str:
    """Run a block of Python as a reader would, and return what it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(checkout: Checkout, line: str) -> str:
    """Run a line of the shell that calls Snakemake, and return what it prints."""
    words = shlex.split(line)
    assert words[0] == "snakemake"
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=checkout.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_from_a_folder_of_images_to_a_merged_clip(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    draw, look, use = blocks(PAGE, "python")
    first, added, _ = blocks(PAGE, "yaml")
    _, plan, run, export = blocks(PAGE, "sh")

    python(checkout, draw)
    assert len(list(checkout.folder.glob("arrows/pictures/*/*.png"))) == 600
    (checkout / "arrows" / "config.yaml").write_text(first)
    for line in plan.splitlines():
        shell(checkout, line)
    shell(checkout, run.strip())

    printed = python(checkout, look)
    assert "task_arithmetic" in printed and "ties" in printed
    summary = pd.read_csv(checkout / "arrows/results/tables/summary.csv")
    assert {"arrows", "handwritten", "road_signs"} <= set(summary.columns)

    config = yaml.safe_load(first)
    config["grid"] |= yaml.safe_load(added)["grid"]
    (checkout / "arrows" / "config.yaml").write_text(yaml.safe_dump(config))
    again = shell(checkout, run.strip() + " --quiet host")
    assert "finetune" not in again and "dataset" not in again

    shell(checkout, export.strip())
    right, _, of = python(checkout, use).splitlines()[-1].split()[:3]
    assert int(right) > 0.5 * int(of)
