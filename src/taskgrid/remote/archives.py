"""Archives: what is in them, put in place file by file.

A file that is there already with the archive's size is left alone, so that an interrupted unpacking
goes on where it was. Nothing outside the folder is written, and no link is made.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from taskgrid.errors import ArtifactError
from taskgrid.machine.meter import Meter, silent
from taskgrid.store.atomic import atomic_path

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int | None
    content: IO[bytes]


def unpack(archive: str | Path, folder: str | Path, progress: Meter | None = None) -> int:
    """Unpack a ``.zip``, a ``.tar`` (compressed or not) or a ``.gz`` into a folder.

    Args:
        archive: the archive; what it is, is read from its content.
        folder: where its files go.
        progress: called with the archive's size, told of the unpacked bytes of each file.

    Returns:
        The number of files.

    Raises:
        ArtifactError: if it is damaged or no archive, a file in it would go elsewhere, or the file
            system refuses to write.
    """
    source, target = Path(archive), Path(folder)
    count = 0
    try:
        with (progress or silent)(source.stat().st_size) as counter:
            for member in _members(source):
                path = target / _inside(member.name, source)
                if not (path.is_file() and path.stat().st_size == member.size):
                    with atomic_path(path) as temporary, temporary.open("wb") as sink:
                        shutil.copyfileobj(member.content, sink)
                counter.advance(member.size or 0)
                count += 1
    except _DAMAGE as error:
        raise ArtifactError(
            f"{source} is damaged or no archive that can be unpacked here ({error}); delete it and "
            "run again, or unpack it by hand"
        ) from error
    return count


def _members(source: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(source):
        yield from _zipped(source)
    elif tarfile.is_tarfile(source):
        yield from _tarred(source)
    elif source.suffix == ".gz":
        if not source.stat().st_size:
            raise EOFError("it is empty")
        with gzip.open(source) as stream:
            yield _Member(source.stem, None, cast(IO[bytes], stream))
    else:
        raise tarfile.ReadError("it is no .zip, .tar or .gz file")


def _zipped(source: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as stream:
                    yield _Member(info.filename, info.file_size, stream)


def _tarred(source: Path) -> Iterator[_Member]:
    with tarfile.open(source) as archive:
        for info in archive:
            if info.isdir():
                continue
            stream = archive.extractfile(info) if info.isfile() else None
            if stream is None:
                raise ArtifactError(
                    f"{source} holds {info.name!r}, which is neither a file nor a folder; unpack it "
                    "by hand if you trust it"
                )
            with stream:
                yield _Member(info.name, info.size, stream)


def _inside(name: str, source: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ArtifactError(f"{source} holds {name!r}, which would be put outside of its folder")
    return path
