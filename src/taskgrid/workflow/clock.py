"""Files from the future: of a clock that was ahead when they were written, and was set right since.

Snakemake compares times, and fails a job whose output is older than what it was made from.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from taskgrid.store.atomic import explain_os_error


def bring_to_now(folder: Path) -> str | None:
    """Give files from the future the time of now, by the clock of the disk that they lie on.

    Args:
        folder: what is looked through.

    Returns:
        What a person should know, if there were any.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            now = os.fstat(probe.fileno()).st_mtime_ns
    except OSError as error:
        raise explain_os_error(error, folder) from error
    count = furthest = 0
    for path in folder.rglob("*"):
        # It may go meanwhile, or be somebody else's; what matters then is said by Snakemake.
        with suppress(OSError):
            ahead = path.stat().st_mtime_ns - now
            if ahead > 0:
                os.utime(path, ns=(now, now))
                count, furthest = count + 1, max(furthest, ahead)
    if not count:
        return None
    return (
        f"{count} files under {folder} are from the future (by up to {furthest / 1e9:.0f} seconds), because "
        "a clock was wrong; they are kept, and given the time of now"
    )
