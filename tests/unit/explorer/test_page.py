"""The page as a file: whole in itself, small, the same for the same tables."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from taskgrid.evaluation.tangent.margins import margins_table
from taskgrid.explorer import exact
from taskgrid.explorer.content import content
from taskgrid.explorer.exact import Margins
from taskgrid.explorer.page import page
from tests.unit.example_margins import MODE, MODEL, SEED, affine, held, settings
from tests.unit.example_tables import example

EIGHT = 5_000_000
"""What the page of a grid of eight tasks may take."""


def test_the_page_of_eight_tasks_is_small_and_holds_its_data() -> None:
    lambdas = tuple(f"{value / 20:.2f}" for value in range(21))
    tables = example(tasks=8, methods=("ties",), seeds=(0,), lambdas=lambdas)
    assert tables.grid.loc[tables.grid["method"] == "ties", "subset"].nunique() == 255
    found = content(tables.grid, tables.selected, [], {"tasks": [], "methods": [], "files": []})
    # Beside it, as much of margins as ever goes into a page; of noise, which gets no smaller.
    noise = np.random.default_rng(0).bytes(exact._BYTES)
    text = page({**found, "noise": base64.b64encode(noise).decode()})
    assert len(text.encode()) < EIGHT
    there = held(text)
    there.pop("noise")
    assert there == json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def tangent() -> str:
    world = affine()
    table = margins_table(world, world.tasks, world.tasks, 0.0, 1.0).to_pandas()
    margins = [Margins((MODEL, MODE, SEED), table)]
    return page(content(*world.tables(), margins, settings(world.tasks)))


def test_equal_tables_give_equal_pages(tangent: str) -> None:
    world = affine()
    table = margins_table(world, world.tasks, world.tasks, 0.0, 1.0).to_pandas()
    margins = [Margins((MODEL, MODE, SEED), table)]
    assert page(content(*world.tables(), margins, settings(world.tasks))) == tangent


def test_nothing_is_loaded_from_elsewhere(tangent: str) -> None:
    outside = re.sub(r"(?s)(<script[^>]*>).*?</script>", r"\1", tangent)
    tags = re.findall(r"<(?:script|link|img|iframe|source|style)\b[^>]*>", outside)
    assert len(tags) >= 5
    assert [tag for tag in tags if re.search(r"""\b(src|href)=["'](?!data:)""", tag)] == []
    assert "default-src 'none'" in tangent
    # One that ends early would show code as text.
    assert tangent.count("</script>") == tangent.count("<script") == 3
