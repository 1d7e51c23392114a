"""The fingerprint of files that taskgrid did not write: cheap, and blind to their times."""

from __future__ import annotations

import os
from pathlib import Path

from taskgrid.errors import DataError
from taskgrid.provenance.digests import digest, digest_file
from taskgrid.provenance.walking import files_below

_HASHED_BYTES = 64 * 2**20
"""Up to this size a source is fingerprinted by content; beyond, by names and sizes."""


def fingerprint(path: str | Path) -> str:
    """Return a digest of a file or folder that changes when its files do.

    Small sources are hashed byte by byte. Larger ones are listed by relative name and size, so that
    a Snakefile with a million images is still parsed in seconds; an edit that keeps a file's size
    is then not seen (run `snakemake --forcerun dataset`). A touch changes nothing. Links are
    followed, as whoever reads the data follows them.

    Raises:
        DataError: if the path does not exist, or cannot be read.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"{root} does not exist; correct `path` or put the data there")
    found = sorted(files_below(root)) if root.is_dir() else [root]
    names = [file.name if file == root else file.relative_to(root).as_posix() for file in found]
    try:
        sizes = [file.stat().st_size if file.is_file() else None for file in found]
        small = sum(size or 0 for size in sizes) <= _HASHED_BYTES
        return digest(
            [
                [_text(name), _lost(file) if size is None else digest_file(file) if small else size]
                for name, file, size in zip(names, found, sizes, strict=True)
            ]
        )
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from error


def _lost(file: Path) -> str:
    """Say what is there in place of a file: whoever reads the data may refuse it, or not need it."""
    return f"-> {_text(str(file.readlink()))}" if file.is_symlink() else "no file"


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")
