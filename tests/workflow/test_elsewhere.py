"""The project used from elsewhere: another working folder, and as a module of somebody's workflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import ROOT, TINY, Outcome, write_task

pytestmark = pytest.mark.workflow

DATASET = "results/data/24px/a/dataset.json"

MODULE = """
configfile: "mine.yaml"


module taskgrid:
    snakefile:
        %s
    config:
        config["taskgrid"]


use rule * from taskgrid as grid_*


rule answer:
    input:
        "results/data/24px/a/dataset.json",
    output:
        "answer.txt",
    shell:
        "grep -c digest {input} > {output}; echo ${{PYTHONPATH:-none}} >> {output}"
"""


def snakemake(folder: Path, *arguments: str, **environment: str) -> Outcome:
    """Call Snakemake in a folder, with no library on the path but the installed ones."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "snakemake", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=own | environment,
        capture_output=True,
        text=True,
        check=False,
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
    snakemake(ROOT, *call, DATASET, "--cores", "1")
    assert json.loads((elsewhere / DATASET).read_text())["task"] == "a"
    # Where the project lies is in no record of a job.
    assert "Nothing to be done" in snakemake(ROOT, *call, DATASET, "--cores", "1").text


def test_a_file_of_the_call_is_laid_over_the_default(elsewhere: Path) -> None:
    (elsewhere / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    planned = snakemake(elsewhere, "-s", f"{ROOT}/Snakefile", "-n", "--configfile", "tiny.yaml")
    assert planned.rules["finetune"] == 3


def test_a_module_takes_the_configuration_that_it_is_given(elsewhere: Path) -> None:
    (elsewhere / "Snakefile").write_text(MODULE % f'"{ROOT}/Snakefile"')
    (elsewhere / "mine.yaml").write_text(yaml.safe_dump({"taskgrid": TINY, "other": 1}))
    assert snakemake(elsewhere, "-n", "grid_all").rules["grid_finetune"] == 3
    snakemake(elsewhere, "answer.txt", "--cores", "1")
    assert json.loads((elsewhere / DATASET).read_text())["task"] == "a"
    # Rules of the calling workflow run as they would without the module.
    assert (elsewhere / "answer.txt").read_text().split()[1] == "none"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the package as its wheel has it, without a build."""
    site = tmp_path / "site"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source in wheel["packages"]:
        shutil.copytree(
            ROOT / source, site / Path(source).name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name, place in wheel["force-include"].items():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, site / place)
    return site


def test_an_installed_package_is_a_module_with_all_that_it_needs(
    elsewhere: Path, package: Path
) -> None:
    found = 'str(__import__("taskgrid.workflow.project", fromlist=["ROOT"]).ROOT / "Snakefile")'
    (elsewhere / "Snakefile").write_text(MODULE % found)
    (elsewhere / "mine.yaml").write_text(yaml.safe_dump({"taskgrid": TINY}))
    ran = snakemake(elsewhere, DATASET, "--cores", "1", "-p", PYTHONPATH=str(package))
    assert f"{package}/taskgrid/scripts/dataset.py" in ran.text
    assert f"{ROOT}/scripts" not in ran.text and f"{ROOT}/src" not in ran.text
    assert json.loads((elsewhere / DATASET).read_text())["task"] == "a"


def test_a_tag_on_github_is_a_module_as_snakedeploy_writes_it(
    elsewhere: Path, package: Path
) -> None:
    hosted = elsewhere / "hosted" / "taskgrid" / "taskgrid"
    for name in ("Snakefile", "rules", "envs", "config.yaml", "resources/report"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        (hosted / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, hosted / name)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["tag", "v0.1.0"]):
        subprocess.run(["git", *identity, *arguments], cwd=hosted, check=True)
    declared = 'github("taskgrid/taskgrid", path="Snakefile", tag="v0.1.0")'
    assert declared in (ROOT / "docs" / "module.md").read_text()
    (elsewhere / "Snakefile").write_text(MODULE % declared)
    (elsewhere / "mine.yaml").write_text(yaml.safe_dump({"taskgrid": TINY}))
    snakemake(
        elsewhere,
        *(DATASET, "--cores", "1"),
        PYTHONPATH=str(package),
        XDG_CACHE_HOME=str(elsewhere / "cache"),
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0=f"url.{elsewhere}/hosted/.insteadOf",
        GIT_CONFIG_VALUE_0="https://github.com/",
    )
    assert json.loads((elsewhere / DATASET).read_text())["task"] == "a"
