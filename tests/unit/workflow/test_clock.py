"""Files from the future get the time of now, all the same one; others are let be."""

from __future__ import annotations

import os
import time
from pathlib import Path

from taskgrid.workflow.clock import bring_to_now


def test_files_from_the_future_are_brought_to_now_together(tmp_path: Path) -> None:
    assert bring_to_now(tmp_path) is None
    (tmp_path / "deep").mkdir()
    old, *ahead = (tmp_path / "old", tmp_path / "deep/a", tmp_path / "deep/b")
    for path, at in zip((old, *ahead), (-50, 1000, 3000), strict=True):
        path.touch()
        os.utime(path, (time.time() + at,) * 2)
    before = old.stat().st_mtime_ns
    (tmp_path / "nowhere").symlink_to("away")
    said = bring_to_now(tmp_path)
    assert said is not None and said.startswith(f"2 files under {tmp_path} are from the future")
    assert "by up to 3000 seconds" in said or "by up to 2999 seconds" in said
    (now,) = {path.stat().st_mtime_ns for path in ahead}
    assert abs(now / 1e9 - time.time()) < 100 and old.stat().st_mtime_ns == before
    assert bring_to_now(tmp_path) is None
