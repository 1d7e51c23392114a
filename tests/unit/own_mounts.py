"""Commands that see file systems of their own: small, or read-only also to root."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

import pytest

_WAYS = (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"])


def in_own_mounts(mount: str, command: Sequence[str]) -> list[str]:
    """Return a command that runs after ``mount``, which nobody else sees; skip where that is not allowed.

    Args:
        mount: what is mounted, in a shell's words.
        command: what then runs.
    """
    for way in _WAYS:
        words = [*way, "sh", "-c", f"{mount} && exec {shlex.join(command)}"]
        try:
            tried = [*way, "sh", "-c", mount]
            if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
                return words
        except FileNotFoundError:
            break
    pytest.skip("this machine lets nobody mount a file system of one's own (unshare --mount)")
