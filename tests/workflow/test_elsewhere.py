"""The project used from elsewhere: another working folder, and as a module of somebody's workflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import ROOT, TINY, Outcome, write_task

pytestmark = pytest.mark.workflow

SPLIT = "results/splits/24px/a.json"

MODULE = f"""
configfile: "mine.yaml"


module taskgrid:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config["taskgrid"]


use rule * from taskgrid as grid_*


rule answer:
    input:
        "{SPLIT}",
    output:
        "answer.txt",
    shell:
        "grep -c digest {{input}} > {{output}}; echo ${{{{PYTHONPATH:-none}}}} >> {{output}}"
"""


def snakemake(folder: Path, *arguments: str) -> Outcome:
    """Call Snakemake in a folder, with no library on the path but the installed ones."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    outcome = Outcome(done.returncode, done.stdout + done.stderr)
    assert outcome.code == 0, outcome.text
    return outcome


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with the data of the tiny experiment and nothing of the project."""
    for index, name in enumerate("abc"):
        write_task(tmp_path / "data" / name / f"{name}.npz", index)
    return tmp_path


def test_the_default_plans_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    planned = snakemake(tmp_path, "-s", f"{ROOT}/Snakefile", "-d", "empty", "-n")
    assert planned.rules["finetune"] == planned.rules["split"] == 5
    assert planned.rules["reference"] == 1


def test_another_working_folder_has_its_own_configuration_and_results(elsewhere: Path) -> None:
    (elsewhere / "config.yaml").write_text(yaml.safe_dump(TINY))
    call = ("-s", f"{ROOT}/Snakefile", "-d", str(elsewhere))
    assert snakemake(ROOT, *call, "-n").rules["finetune"] == 3
    snakemake(ROOT, *call, SPLIT, "--cores", "1")
    assert json.loads((elsewhere / SPLIT).read_text())["task"] == "a"
    # Where the project lies is in no record of a job.
    assert "Nothing to be done" in snakemake(ROOT, *call, SPLIT, "--cores", "1").text


def test_a_file_of_the_call_is_laid_over_the_default(elsewhere: Path) -> None:
    (elsewhere / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    planned = snakemake(elsewhere, "-s", f"{ROOT}/Snakefile", "-n", "--configfile", "tiny.yaml")
    assert planned.rules["finetune"] == 3


def test_a_module_takes_the_configuration_that_it_is_given(elsewhere: Path) -> None:
    (elsewhere / "Snakefile").write_text(MODULE)
    (elsewhere / "mine.yaml").write_text(yaml.safe_dump({"taskgrid": TINY, "other": 1}))
    assert snakemake(elsewhere, "-n", "grid_all").rules["grid_finetune"] == 3
    snakemake(elsewhere, "answer.txt", "--cores", "1")
    assert json.loads((elsewhere / SPLIT).read_text())["task"] == "a"
    # Rules of the calling workflow run as they would without the module.
    assert (elsewhere / "answer.txt").read_text().split()[1] == "none"
