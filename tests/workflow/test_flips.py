"""One flipped byte under ``results`` is seen before a number depends on it, and ends no process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.workflow.conftest import ROOT, Checkout

pytestmark = pytest.mark.workflow


def test_flipped_bytes_are_seen_in_every_kind_of_file(finished: Checkout) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workflow.flips", str(finished / "results")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
