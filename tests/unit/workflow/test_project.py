"""The project is found from its package, and its default lies below every configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from taskgrid.errors import ConfigError
from taskgrid.workflow import project


def test_scripts_and_default_are_found_from_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (project.SCRIPTS / "finetune.py").is_file()
    assert project.DEFAULT.is_file()
    assert project.layers([]) == [project.DEFAULT]
    assert project.configuration([]).finetune.recipe.steps == 300


def test_a_working_folder_lays_its_own_configuration_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("finetune: {recipe: {steps: 7}}\n")
    Path("more.yaml").write_text("finetune: {recipe: {batch_size: 9}}\n")
    recipe = project.configuration(["more.yaml"], {"device": "cpu"}).finetune.recipe
    assert (recipe.steps, recipe.batch_size, recipe.warmup_steps) == (7, 9, 30)


def test_the_default_is_read_once_in_the_projects_own_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project.ROOT)
    assert project.layers(["config.yaml"]) == [Path("config.yaml")]


def test_a_module_sees_what_it_is_given_and_no_file_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("samples: [not, ours]\n")
    assert project.module_configuration({"device": "cpu"}).device == "cpu"
    with pytest.raises(ConfigError, match="unknown key 'samples'"):
        project.module_configuration({"samples": []})


AWKWARD = 'it\'s a "$HOME" & `id` ünï; %20?#'


def test_a_command_runs_with_this_library_wherever_that_and_python_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / AWKWARD
    place.mkdir()
    for name in ("src", "scripts"):
        (place / name).symlink_to(project.ROOT / name)
    # A link to the interpreter would lose its packages.
    (place / "my python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (place / "my python").chmod(0o755)
    monkeypatch.setattr(project, "SOURCE", place / "src")
    monkeypatch.setattr(project, "SCRIPTS", place / "scripts")
    text = project.command(str(place / "my python"), "split.py", 1, "--help")
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        text, shell=True, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "train, validation and test" in done.stdout


def test_a_job_has_the_threads_of_its_rule_whatever_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "SCRIPTS", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (tmp_path / "count.py").write_text(
        "import pyarrow, torch; print(torch.get_num_threads(), pyarrow.cpu_count())"
    )
    text = project.command(sys.executable, "count.py", 1)
    done = subprocess.run(text, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("sign", ["{", "}", ":", "\n"])
def test_a_place_that_cannot_be_written_down_is_refused(sign: str) -> None:
    project.check_place(Path("/some where", AWKWARD))
    with pytest.raises(ConfigError, match=r"lies in '/my.*project', whose .* rename that folder"):
        project.check_place(Path(f"/my{sign}project"))


def test_every_name_in_a_command_is_quoted() -> None:
    found = []
    for rules in sorted((project.ROOT / "rules").glob("*.smk")):
        for block in re.findall(r"\n    shell:\n((?:        .*\n)+)", rules.read_text()):
            found += re.findall(r"{([^{}]+)}", block)
    assert len(found) > 100
    # That one is a command itself, quoted as such.
    assert {name for name in found if not name.endswith(":q")} == {"params.script"}


@pytest.mark.parametrize(("names", "pattern"), [(["a.b", 1], r"a\.b|1"), ([], "(?!)")])
def test_a_wildcard_is_one_of_some_names(names: list[object], pattern: str) -> None:
    assert project.one_of(names) == pattern


def test_a_command_takes_more_than_a_command_line_can(tmp_path: Path) -> None:
    # An argument of 200 kB (128 are allowed), and 3 MB of them in all (2 are).
    text = project.command(sys.executable, "split.py", 1)
    settings = f"""'{{"task": "a", "subsets": "{"a+" * 100_000}"}}'"""
    paths = " ".join([f"--images {'x' * 1000}"] * 3000)
    script = tmp_path / "job.sh"
    script.write_text(
        f"{text} --settings {settings} {paths} --images 'no such file' --manifest 'no such file' --split s\n"
    )
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: no such file"), done.stderr


def test_values_within_others_are_read_from_the_call() -> None:
    kept = {"grid": {"lambdas": ["0", "0.25"]}, "device": "cpu"}
    entries = ['grid={"lambdas":[0,0.25]}', "device=cpu"]
    expected = {"grid": {"lambdas": [0, 0.25]}, "device": "cpu"}
    assert project.call_values(kept, entries) == expected
    # A program that calls Snakemake gives values, and the entries are made of them.
    assert project.call_values({"a": {"b": None}}, ["a={'b': None}"]) == {"a": {"b": None}}
    assert project.call_values({"a": {"b": "1"}}, ["a={'b': '1'}"]) == {"a": {"b": "1"}}
    assert project.call_values({}, []) == {}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            "grid={lambdas: [.nan]}",
            r"--config grid: lambdas\[0\] is nan, which is not a finite number",
        ),
        ("grid={a: 1, a: 2}", "--config grid has the key 'a' twice"),
        ("grid={lambdas: [", "--config grid is not YAML"),
    ],
)
def test_a_call_is_read_as_strictly_as_a_file(entry: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        project.call_values({"grid": "text"}, [entry])
