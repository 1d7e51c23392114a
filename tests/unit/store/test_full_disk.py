"""A full disk: at whatever byte a writer meets it, one sentence, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.full_disk import WRITERS, faults
from tests.unit.own_mounts import in_own_mounts

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_reach_the_disk_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Where disks promise room before they look for it, the last moment is the first that tells.
    monkeypatch.setattr(os, "fsync", full)
    assert faults(name, tmp_path) == []


def test_every_writer_on_a_disk_that_is_full_at_every_page(tmp_path: Path) -> None:
    command = in_own_mounts(
        f"mount -t tmpfs -o size=1m,huge=never none {tmp_path}",
        [sys.executable, "-m", "tests.unit.full_disk", str(tmp_path)],
    )
    paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["refused"].keys() == WRITERS.keys() and min(told["refused"].values()) > 1
