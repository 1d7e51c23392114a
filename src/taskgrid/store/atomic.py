"""Files that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from taskgrid.errors import ArtifactError
from taskgrid.store import seals

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EACCES: "permission denied: make the folder writable or choose another one",
    errno.EPERM: "permission denied: make the folder writable or choose another one",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EEXIST: "a file of that name is in the way: move it",
    errno.EISDIR: "a folder of that name is in the way: move it",
    errno.ENOTDIR: "a file is in the way: move it",
    errno.EMFILE: "too many files are open: write fewer at a time or raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: write fewer at a time",
}
_AS_TEXT = re.compile(r"\(os error (\d+)\)")
_ON_ITS_WAY = ".tmp"
_RANDOM = 8
"""Letters by which ``tempfile`` tells names apart."""


def explain_os_error(error: OSError, path: str | Path) -> ArtifactError:
    """Turn the operating system's refusal into a sentence that says what to do about it."""
    reason = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    return ArtifactError(f"cannot write {path}: {reason}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    On any error, also on a full disk, the temporary file is removed and ``path`` is untouched. What a
    killed process left of one is removed when the same path is written again.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        temporary, lock = _begin(target)
    except OSError as error:
        raise explain_os_error(error, target) from error
    try:
        yield temporary
        publish(temporary, target)
    except Exception as error:
        number = _number_of(error)
        if number in _ADVICE:
            raise explain_os_error(OSError(number, str(error)), target) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


def publish(temporary: Path, target: Path) -> None:
    """Make a finished file appear under its name, with the bytes on the disk before the name."""
    with temporary.open("rb+") as stream:
        os.fsync(stream.fileno())
    # mkstemp makes private files; results are as readable as the user's umask says.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(target)


def _number_of(error: Exception) -> int | None:
    """Return the operating system's number of an error; libraries in Rust give it as text."""
    if isinstance(error, OSError):
        return error.errno
    found = _AS_TEXT.search(str(error))
    return int(found[1]) if found else None


def _begin(target: Path) -> tuple[Path, int]:
    """Make a temporary file; it is locked for as long as the number that comes with it is open."""
    while True:
        lock, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=_ON_ITS_WAY, dir=target.parent
        )
        # Some network file systems lock nothing; there leftovers stay.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if Path(name).exists():
            return Path(name), lock
        # Another writer of the path took it for a leftover: it was not locked yet.
        os.close(lock)


def _remove_leftovers(target: Path) -> None:
    prefix = f".{target.name}."
    length = len(prefix) + _RANDOM + len(_ON_ITS_WAY)
    for name in os.listdir(target.parent):  # noqa: PTH208 - thousands of names, and no need of paths
        if len(name) == length and name.startswith(prefix) and name.endswith(_ON_ITS_WAY):
            # What cannot be removed, for whatever reason, is in nobody's way.
            with suppress(OSError):
                _remove_unless_held(target.with_name(name))


def _remove_unless_held(temporary: Path) -> None:
    handle = os.open(temporary, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink()
    finally:
        os.close(handle)


def check_writable(folder: str | Path) -> None:
    """Refuse a folder in which no file can be made; it is created if it does not exist.

    Raises:
        ArtifactError: if the file system refuses to write; says why.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise explain_os_error(error, folder) from error


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def sealed_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path as ``atomic_path`` does, and seal what was written there.

    The block writes ``seals.EMPTY`` somewhere among the first or last 256 kB.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with atomic_path(path) as temporary:
        yield temporary
        stated = seals.seal(temporary)
    seals.note(Path(path), stated)


def write_json(path: str | Path, value: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write a JSON object atomically, sealed and with sorted keys: equal values give equal bytes.

    Args:
        path: the file.
        value: what it says; the seal becomes its first key, in place of one that it has.
        indent: spaces per level; None for one line.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    value = {key: part for key, part in value.items() if key != seals.NAME}
    separators = (",", ": ") if indent else (",", ":")
    said, sealed = (
        json.dumps(
            part,
            indent=indent,
            separators=separators,
            sort_keys=True,
            ensure_ascii=False,
            allow_nan=False,
        )
        for part in (value, {seals.NAME: seals.EMPTY})
    )
    text = sealed.rstrip("}\n") + "," + said[1:] if value else sealed
    with sealed_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object that ``write_json`` wrote.

    Raises:
        ArtifactError: if the file is missing, unreadable, or not as it was written.
    """
    seals.check(path)
    value: dict[str, Any] = read_foreign_json(path)
    del value[seals.NAME]
    return value


def read_foreign_json(path: str | Path) -> Any:
    """Read a JSON file that came from elsewhere or with the project, and carries no seal.

    Raises:
        ArtifactError: if the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} cannot be read as JSON ({error}); delete it and run again"
        ) from error
