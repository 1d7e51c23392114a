"""Every command that README and docs tell is run by a test, or needs what tests do not have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

from tests.unit.docs.blocks import DOCS, commands, inline

ROOT = DOCS.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FIRST_WORDS = {
    *("createdb", "cp", "export", "git", "make", "mlflow", "pip", "podman", "pytest", "python"),
    *("snakedeploy", "snakemake", "srun", "tmux"),
}

# By the beginning of a command. Of the rest, what it is says what runs it.
NEEDS = {
    "cp -r profiles/": "a cluster",
    "createdb": "a server",
    "export SNAKEMAKE_STORAGE": "a cluster",
    "git": "a network",
    "make audit": "a network",
    "make .venv": "a network",
    "make chaos": "an hour",
    "make clean": "a network",
    "make lock": "a network",
    "make mlflow-server": "a server",
    "make run PYTHON=": "a network",
    "make run TORCH=": "a network",
    "make sbom": "a network",
    "make test-slurm": "a cluster",
    "make ui": "a person who looks",
    "mlflow": "a server",
    "pip": "a network",
    "podman": "a network",
    "python -m tests.chaos": "an hour",
    "python -m tests.slurm": "a cluster",
    "python - ": "a person who measures",
    "python benchmarks/": "a person who measures",
    "python profiles/mlflow-server/": "a server",
    "snakedeploy": "a network",
    "snakemake --cores all --resources gpu=": "a GPU",
    "snakemake --configfile presets/clip-": "a GPU and a network",
    "snakemake doctor --configfile presets/clip-": "a network",
    "snakemake --profile profiles/mine": "a cluster",
    "srun": "a cluster",
    "tmux": "a cluster",
}


def told() -> Iterator[str]:
    """Yield the commands of the pages: of blocks of a shell, of indented blocks, and within text."""
    for page in PAGES:
        if page.parent.name == "upstream":
            continue  # reports for other projects
        for line in (*commands(page), *inline(page)):
            command = re.sub(r" #.*| \.\.\.$", "", " ".join(line.split()))
            if " " in command and command.split()[0] in FIRST_WORDS:
                yield command


COMMANDS = sorted(set(told()))
NEEDED = {c: next((n for n in NEEDS if c.startswith(n)), None) for c in COMMANDS}


TESTS = "".join(
    file.read_text(encoding="utf-8")
    for file in sorted((ROOT / "tests").rglob("*.py"))
    if file != Path(__file__)
)


@pytest.mark.parametrize("command", [command for command in COMMANDS if NEEDED[command] is None])
def test_a_command_is_run_by_a_test(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        (verb,) = words
        ran = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        assert f"make {verb}" in ran or f'"{verb}"' in TESTS
    elif program == "snakemake":
        asked = get_argument_parser().parse_args(words)
        for word in [*asked.targets, *(word for word in words if word.startswith("-"))]:
            # Of what is exported, the name is the point's.
            assert f'"{word}"' in TESTS or "/".join(word.split("/")[:2]) in TESTS
        for file in map(str, asked.configfile or ()):
            assert file in ("mine.yaml", "presets/NAME.yaml") or (ROOT / file).is_file()
    elif words[:2] == ["-m", "pytest"] or program == "pytest":
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    elif words[0] == "-m":
        package, name = words[1].rsplit(".", 1)
        assert re.search(rf"{package}(\.| import (.*\b)?){name}\b", TESTS)
    else:
        assert program == "python" and words[0].startswith("scripts/"), (
            "say in NEEDS what it needs, or here what runs it"
        )
        assert (ROOT / words[0]).is_file()


@pytest.mark.parametrize(
    "verb", sorted({c.split()[1] for c in COMMANDS if re.match(r"make \w", c)})
)
def test_every_verb_of_make_is_there_and_explained(verb: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{verb}:", makefile, re.MULTILINE)
    assert f"@echo 'make {verb} " in makefile
