"""Folders for files on their way: locked while their writer lives, so that the next one can tidy up."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taskgrid.store.atomic import explain_os_error

_LOCK = "lock"


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Give an empty folder beside ``path``, removed with all that is in it when the block ends.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _begin(path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        yield folder
    finally:
        # Nothing in it is wanted any more, so whoever comes now may clear it as well.
        os.close(lock)
        with suppress(OSError):
            _clear(folder)
            folder.rmdir()


def remove_leftovers(path: Path) -> None:
    """Remove the folders that killed writers of ``path`` left behind; living ones hold a lock."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.tmp")
    if not path.parent.is_dir():
        return
    for folder in path.parent.iterdir():
        if ours.fullmatch(folder.name) and folder.is_dir():
            # What cannot be removed, for whatever reason, is in nobody's way.
            with suppress(OSError):
                _remove(folder)


def _begin(path: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            # Another writer of the path took it for a leftover: it had no lock yet.
            continue
        except OSError:
            folder.rmdir()
            raise
        # Some network file systems lock nothing; there leftovers stay.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        if (folder / _LOCK).exists():
            return folder, lock
        os.close(lock)


def _remove(folder: Path) -> None:
    # Without a lock it is empty, or its writer is just making one.
    with suppress(FileNotFoundError):
        lock = os.open(folder / _LOCK, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(folder)
        finally:
            os.close(lock)
    folder.rmdir()


def _clear(folder: Path) -> None:
    """Remove the files, the lock last: a folder that holds any is known by it."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == _LOCK):
        file.unlink(missing_ok=True)
