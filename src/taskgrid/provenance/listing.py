"""The fingerprint of files that taskgrid did not write: cheap, and blind to their times."""

from __future__ import annotations

import os
from pathlib import Path

from taskgrid.errors import DataError
from taskgrid.provenance.digests import digest, digest_file

_HASHED_BYTES = 64 * 2**20
"""Up to this size a source is fingerprinted by content; beyond, by names and sizes."""


def fingerprint(path: str | Path) -> str:
    """Return a digest of a file or folder that changes when its files do.

    Small sources are hashed byte by byte. Larger ones are listed by relative name and size, so that
    a Snakefile with a million images is still parsed in seconds; an edit that keeps a file's size
    is then not seen (run `snakemake --forcerun dataset`). A touch changes nothing.

    Raises:
        DataError: if the path does not exist.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root} does not exist; correct `path` or put the data there")
    files = [root] if root.is_file() else sorted(_walk(root))
    sizes = [file.stat().st_size for file in files]
    names = [file.name if file == root else file.relative_to(root).as_posix() for file in files]
    if sum(sizes) <= _HASHED_BYTES:
        return digest([[name, digest_file(file)] for name, file in zip(names, files, strict=True)])
    return digest([[name, size] for name, size in zip(names, sizes, strict=True)])


def _walk(root: Path) -> list[Path]:
    return [
        Path(folder) / name
        for folder, folders, names in os.walk(root)
        # Hidden folders are caches and version control, not data.
        if not folders.sort() and "/." not in folder[len(str(root)) :]
        for name in names
        if not name.startswith(".")
    ]
