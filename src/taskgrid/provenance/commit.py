"""The commit that a checkout of taskgrid is at."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PATIENCE = 5.0
"""Seconds: a checkout on a slow disk must not hold up a job for what is only told."""
PACKAGE = Path(__file__).resolve().parents[1]


def commit(package: Path = PACKAGE) -> dict[str, str]:
    """Return as ``commit`` where a package's files are from, ``-dirty`` behind it where they were edited.

    Args:
        package: the folder of a package.

    Returns:
        Nothing where git is not installed, or the package lies in no checkout, or in somebody else's.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {}
    head, edited = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", ".")
    return {"commit": f"{head}-dirty" if edited else head} if head else {}


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
