"""Finished results in a notebook: the same numbers as the workflow's, and a notebook whose cells run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from taskgrid.data.manifest import SplitManifest
from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.evaluation import evaluate_grid
from taskgrid.notebook import open_results
from taskgrid.results import read_grid
from tests.workflow.conftest import TINY, Checkout
from tools.notebook import PAGE, executed

pytestmark = pytest.mark.workflow

COUNTED = ["method", "options", "subset", "point", "task", "split", "role", "n", "correct"]


def test_the_grid_of_opened_results_counts_what_the_workflow_counted(finished: Checkout) -> None:
    run = open_results(finished / "results")
    assert (run.model, run.mode, run.seed) == ("taskgrid-vit-4-s0", "standard", 0)
    grid = TINY["grid"]
    made = evaluate_grid(
        *(run.base, run.card, run.tasks),
        experts=run.experts,
        methods=grid["methods"],
        lambdas=grid["lambdas"],
        seed=run.seed,
    )
    assert set(made["subset"]) == {"", "a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"}
    pd.testing.assert_frame_equal(made[COUNTED], read_grid(finished / "results")[COUNTED])


def test_images_are_those_of_the_split_manifest(finished: Checkout) -> None:
    run = open_results(finished / "results", tasks=["b"])
    assert list(run.tasks) == list(run.experts) == ["b"]
    split = SplitManifest.read(finished / "results/splits/24px/b.json")
    given = np.load(finished / "data/b/b.npz")
    for images, labels, ids in (
        (*run.train("b"), split.train),
        (*run.tasks["b"].val, split.val),
        (*run.tasks["b"].test, split.test),
    ):
        for image, label, name in zip(images, labels, ids, strict=True):
            origin, row = name.split("/")
            assert np.array_equal(image, given[f"{origin}_images"][int(row)])
            assert label == given[f"{origin}_labels"][int(row)]
    with pytest.raises(ConfigError, match="there is no task 'a'"):
        run.train("a")


def test_what_is_not_there_is_said_with_what_is(finished: Checkout, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no experts; run the workflow first"):
        open_results(tmp_path)
    for asked in ({"model": "other"}, {"mode": "linear"}, {"seed": 1}):
        with pytest.raises(
            ConfigError, match=r"no such experts; .*: taskgrid-vit-4-s0/standard/0$"
        ):
            open_results(finished / "results", **asked)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has no task 'd'; there are: a, b, c"):
        open_results(finished / "results", tasks=["a", "d"])
    for seed in "01":
        folder = tmp_path / "experts/m.1/standard" / seed / "a"
        folder.mkdir(parents=True)
        (folder / "expert.safetensors").touch()
    with pytest.raises(ConfigError, match=r"several sets .*: m\.1/standard/0, m\.1/standard/1$"):
        open_results(tmp_path)


def test_every_cell_of_the_notebook_runs(finished: Checkout, tmp_path: Path) -> None:
    # It lies in docs/, with the results beside that folder.
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").symlink_to(finished / "results")
    cells = [cell for cell in executed(tmp_path / "docs").cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = [cell for cell in nbformat.read(PAGE, as_version=4).cells if cell.cell_type == "code"]
    # What is kept was shown by these very cells, of the embedded default.
    for cell, kept in zip(cells, shown, strict=True):
        assert [one.output_type for one in cell.outputs] == [
            one.output_type for one in kept.outputs
        ], cell.source
