"""What pages tell a person to type or to write can be typed and written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser

from taskgrid import plugins
from taskgrid.config import read_config
from tests.unit.docs.blocks import DOCS, blocks, commands

ROOT = DOCS.parent
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
TYPED = [(page, line) for page in PAGES for line in commands(page) if line.startswith("snakemake ")]
WRITTEN = [
    (page, block)
    for page in (DOCS / "howto.md", DOCS / "tutorial.md")
    for block in blocks(page, "yaml")
]
"""Blocks of a configuration."""

THEIRS = {"mine.yaml", "eight.yaml", "profiles/mine"}
"""Files and folders of the reader's own."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def rules() -> set[str]:
    text = "\n".join(
        path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]
    )
    return {
        *re.findall(r"^ *(?:rule|checkpoint) (\w+):", text, re.MULTILINE),
        *plugins.names("study"),
    }


def test_pages_show_commands() -> None:
    assert len(TYPED) > 40


@pytest.mark.parametrize(
    ("page", "line"), TYPED, ids=[f"{named(page)}: {line[:50]}" for page, line in TYPED]
)
def test_a_command_names_what_there_is(page: Path, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    found: Any = get_argument_parser().parse_args(words[1:])
    for file in [*(found.configfile or []), *(found.profile or [])]:
        assert str(file) in THEIRS or (ROOT / file).exists(), file
    for target in found.targets:
        assert target in rules() or target.startswith("results/"), target


@pytest.mark.parametrize(
    ("page", "block"), WRITTEN, ids=[f"{named(page)}: {block[:30]!r}" for page, block in WRITTEN]
)
def test_a_configuration_is_valid(page: Path, block: str) -> None:
    assert read_config(ROOT / "config.yaml", values=yaml.safe_load(block))
