"""Configurations with a mistake, through Snakemake itself: a sentence, no traceback, nothing written.

Each takes a start of Snakemake; set TASKGRID_MUTATIONS to try more of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, seed
from hypothesis import strategies as st

from taskgrid.workflow.project import DEFAULT
from tests.unit.workflow.example_mutations import FILES, Mutation, bounded, mutations, refusal
from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.workflow

COUNT = int(os.environ.get("TASKGRID_MUTATIONS", "4"))


def test_a_mistake_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("config.yaml")
    call = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-d", str(tmp_path)]

    @seed(13)
    @bounded(COUNT)
    @given(st.sampled_from(FILES).flatmap(mutations))
    def check(mutation: Mutation) -> None:
        own.write_text(yaml.safe_dump(mutation.config), encoding="utf-8")
        done = subprocess.run(
            [*call, "-n", "--cores", "1", "--quiet"], capture_output=True, text=True, check=False
        )
        said, message = done.stdout + done.stderr, refusal(DEFAULT, own)
        assert bool(done.returncode) == bool(message), said
        assert message in said and "Traceback" not in said, said
        # What is accepted may make the folder, in which it then is seen to write.
        written = {path for path in Path().rglob("*") if ".snakemake" not in path.parts}
        assert written <= {own, Path("results")}

    check()
