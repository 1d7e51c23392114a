"""Presets: their DAG is built without data or weights, and has the jobs that the documentation says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, Outcome

TABLE = re.compile(r"^\| `(clip-vit-[a-z0-9-]+)` \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


def documented() -> dict[str, int]:
    text = (ROOT / "docs" / "reproduce.md").read_text()
    return {
        name + suffix: int(count)
        for name, *counts in TABLE.findall(text)
        for suffix, count in zip(("", "-hub", "-smoke"), counts, strict=True)
    }


def test_every_preset_of_a_paper_is_documented() -> None:
    presets = {path.stem for path in (ROOT / "presets").glob("clip-*.yaml")}
    further = {name for name in presets if name.endswith(("-methods", "-two-bases"))}
    assert set(documented()) == presets - further
    assert all(f"`{name}`" in (ROOT / "docs" / "reproduce.md").read_text() for name in further)


@pytest.mark.parametrize("preset", ["clip-vit-l-14-8tasks-hub", "clip-vit-b-16-20tasks-smoke"])
def test_the_jobs_are_those_that_the_documentation_counts(preset: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--snakefile", f"{ROOT}/Snakefile", "-n"]
    command += ["--configfile", f"{ROOT}/presets/{preset}.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    outcome = Outcome(done.returncode, done.stdout + done.stderr)
    assert outcome.code == 0, outcome.text
    total = re.search(r"^total +(\d+)", outcome.text, re.MULTILINE)
    assert total is not None
    assert int(total[1]) == documented()[preset]
    assert outcome.rules["import_expert" if preset.endswith("-hub") else "finetune"] in (8, 20)
