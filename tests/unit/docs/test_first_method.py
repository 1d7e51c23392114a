"""The walk-through that adds a merge method works as it is written."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from taskgrid.config import read_config
from taskgrid.merging import merge
from tests.plugins.installed import importable, register
from tests.unit.docs.blocks import DOCS, blocks

PAGE = DOCS / "first-method.md"


@pytest.fixture(autouse=True)
def installed(tmp_path: Path) -> Iterator[None]:
    """The method as the page installs it."""
    (toml,) = blocks(PAGE, "toml")
    ((name, module),) = tomllib.loads(toml)["project"]["entry-points"]["taskgrid.plugins"].items()
    assert (name, module) == ("merger.median", "my_merges.median")
    (tmp_path / "my_merges").mkdir()
    (tmp_path / "my_merges" / "__init__.py").touch()
    (tmp_path / "my_merges" / "median.py").write_text(blocks(PAGE, "python")[0])
    register(tmp_path, "my_merges", {name: module})
    with importable(tmp_path, "my_merges"):
        yield


def test_the_example_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    example = blocks(PAGE, "python")[1]
    exec(compile(example, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.strip() == example.rpartition("# ")[2].strip()


@pytest.mark.parametrize("tasks", ["abc", "abcd"])
@pytest.mark.parametrize("times", ["tasks", "one"])
def test_it_is_the_median(tasks: str, times: str) -> None:
    draw = torch.Generator().manual_seed(0)
    base = {"weight": torch.randn(4, 5, generator=draw)}
    experts = {task: {"weight": torch.randn(4, 5, generator=draw)} for task in tasks}
    vectors = [expert["weight"].double() - base["weight"].double() for expert in experts.values()]
    factor = len(tasks) if times == "tasks" else 1
    median = np.median(np.stack([vector.numpy() for vector in vectors]), axis=0)
    expected = base["weight"].double().numpy() + 0.7 * factor * median
    found = merge("median", base, experts, 0.7, times=times)["weight"]
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_the_configuration_of_the_page_knows_it() -> None:
    (text,) = blocks(PAGE, "yaml")
    config = read_config(DOCS.parent / "config.yaml", values=yaml.safe_load(text))
    found = [(method.name, method.label) for method in config.grid.methods]
    assert found == [("task_arithmetic", None), ("median", None), ("median", "plain_median")]
