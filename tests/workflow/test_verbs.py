"""The verbs that a person types, in a checkout that is set up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from taskgrid.config import read_config
from tests.workflow.conftest import ROOT, Checkout

pytestmark = pytest.mark.workflow


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    """A finished checkout whose own configuration is the tiny one, as if `make` had set it up."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(ROOT / name, checkout / name)
    own = read_config(ROOT / "config.yaml", values=checkout.config)
    (checkout / "config.yaml").write_text(
        yaml.safe_dump(own.model_dump(mode="json", exclude_unset=True))
    )
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    return checkout


def make(checkout: Checkout, *words: str) -> str:
    """Call make; return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["make", *words],
        cwd=checkout.folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_make_run_ends_with_the_report_and_has_nothing_to_do_again(ready: Checkout) -> None:
    assert "results/report.html" in make(ready, "run", "CORES=2")
    report = (ready / "results/report.html").stat()
    assert report.st_size > 100_000
    make(ready, "run", "CORES=2")
    assert (ready / "results/report.html").stat().st_mtime_ns == report.st_mtime_ns
    assert "everything is up to date" in make(ready, "plan", "CORES=2")


def test_studies_that_are_added_are_targets(checkout: Checkout) -> None:
    checkout.config["studies"] = ["addition", "shapley", "barriers"]
    planned = checkout.plan("shapley", "barriers")
    assert planned["study"] >= 2 and planned["figure"] >= 2


def test_the_python_of_the_readme_runs_as_it_is_written(finished: Checkout) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (part.split("```")[0] for part in text.split("```python\n")[1:])
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=finished.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "a+b+c" in done.stdout and "ties" in done.stdout
