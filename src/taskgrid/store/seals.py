"""Seals: every file under ``results`` says the digest of its own bytes, and no reader goes before it.

The seal is a text of fixed length that stands where the format keeps what is said about a file: a key of a
JSON object, the metadata of an Arrow or Parquet schema, the bytes behind an array. It is written empty,
the digest is that of all bytes but its own 32, and is then written into its place. So a file is one
file, other programs read it as ever, equal content has equal bytes, and one changed byte is seen
wherever it is, before a parser meets it. (Weights have a digest of their tensors and one of their
lineage instead, see ``store.weights``: they are written and read piece by piece.)

Large files are not read again by each job: that one was found whole is noted beside it, with what the
file system says of it, and holds until that changes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from taskgrid.errors import ArtifactError
from taskgrid.store.makers import mend

_MARK = b"taskgrid-seal:"
_DIGITS = 32

NAME = "seal"
"""The key that a seal stands under where a format has keys."""

EMPTY = _MARK.decode() + "0" * _DIGITS
"""What a writer puts there; ``seal`` fills it in."""

UNSEALED = "it carries no seal: an earlier version of taskgrid wrote it, or it was changed"
"""What ``fault`` says of a file that has none."""

_LONGEST_REASON = 200
_WINDOW = 256 << 10
_CHUNK = 256 << 10
_NOTED_FROM = 16 << 20
"""Bytes from which on a file is noted. Smaller ones are read in less time than a note is worth."""


def seal(path: Path) -> str:
    """Fill the empty seal of a file in, and return it.

    Raises:
        ValueError: if the file has no room for one.
        OSError: if the file system refuses.
    """
    with path.open("r+b") as stream:
        place = _place(stream)
        if place is None:
            raise ValueError(f"{path} has no room for a seal")
        found = _digest(stream, place)
        stream.seek(place)
        stream.write(found.encode())
    return found


def check(path: str | Path) -> None:
    """Compare a file with its seal.

    Raises:
        ArtifactError: if it is missing, cannot be read, carries no seal or does not match it; says how
            to mend that.
    """
    try:
        reason = fault(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; run the workflow, which makes it") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
    if reason is not None:
        raise damaged(path, reason)


def fault(path: str | Path) -> str | None:
    """Return what is wrong with a file; None if it matches its seal.

    Raises:
        OSError: if it is missing or cannot be read.
    """
    path = Path(path)
    with path.open("rb") as stream:
        state = os.fstat(stream.fileno())
        place = _place(stream)
        if place is None:
            return UNSEALED
        stated = _stated(stream, place)
        if _is_noted(path, stated, state):
            return None
        if _digest(stream, place) != stated:
            return "its bytes do not match its seal: it was changed after it was written"
    note(path, stated, state)
    return None


def seal_of(path: str | Path) -> str:
    """Return the seal of a file that has one, without a look at the rest.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it has none.
    """
    with Path(path).open("rb") as stream:
        place = _place(stream)
        if place is None:
            raise ValueError(f"{path} has no seal")
        return _stated(stream, place)


def note(path: Path, stated: str, state: os.stat_result | None = None) -> None:
    """Note that a file matches its seal, so that the next reader need not look.

    Args:
        path: the file.
        stated: its seal.
        state: of the file that was looked at; default: as it is now.
    """
    try:
        state = state or path.stat()
        if state.st_size >= _NOTED_FROM:
            _note_of(path).write_text(_noted(stated, state), encoding="ascii")
    except OSError:
        # Results may be read-only, the disk full, the file merged into another one by now: then each
        # reader looks for itself.
        return


def forget(path: Path) -> None:
    """Remove what was noted about a file that is deleted."""
    _note_of(path).unlink(missing_ok=True)


def damaged(path: str | Path, reason: str) -> ArtifactError:
    """Return the error for a file of results that cannot be used, with the way to mend it."""
    # A hostile header is quoted whole by whoever reads it, and torch adds a trace.
    line = reason.partition("\n")[0][:_LONGEST_REASON]
    return ArtifactError(f"{path} is damaged ({line}); {mend(path)}")


def _place(stream: BinaryIO) -> int | None:
    """Return where the digits of a seal begin: formats keep their metadata in front or at the end."""
    size = stream.seek(0, os.SEEK_END)
    for start in dict.fromkeys((0, max(0, size - _WINDOW))):
        stream.seek(start)
        found = stream.read(_WINDOW).find(_MARK)
        if found >= 0:
            return start + found + len(_MARK)
    return None


def _stated(stream: BinaryIO, place: int) -> str:
    stream.seek(place)
    return stream.read(_DIGITS).decode("latin-1")


def _digest(stream: BinaryIO, place: int) -> str:
    total = hashlib.sha256()
    stream.seek(0)
    missing = place
    while chunk := stream.read(min(_CHUNK, missing)):
        total.update(chunk)
        missing -= len(chunk)
    stream.seek(place + _DIGITS)
    while chunk := stream.read(_CHUNK):
        total.update(chunk)
    return total.hexdigest()[:_DIGITS]


def _note_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.whole")


def _is_noted(path: Path, stated: str, state: os.stat_result) -> bool:
    try:
        found = _note_of(path).read_bytes()
    except OSError:
        return False
    return found == _noted(stated, state).encode("ascii", "replace")


def _noted(stated: str, state: os.stat_result) -> str:
    # The time of the last change of the inode cannot be set back, as that of the content can.
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return " ".join(map(str, (stated, state.st_ino, state.st_size, *times))) + "\n"
