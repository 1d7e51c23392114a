"""Archives: what is in them, put in place file by file.

A file that is there already with the archive's size is left alone, so that an interrupted unpacking
goes on where it was. Nothing outside the folder is written, no link is made and none below the folder
is followed. What unpacks to far more than images do is refused before it fills the disk.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from taskgrid.errors import ArtifactError
from taskgrid.machine.meter import Meter, silent
from taskgrid.store.atomic import atomic_path

_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error),
    *(struct.error, EOFError, NotImplementedError, ValueError, KeyError, RuntimeError, MemoryError),
)

_CHUNK = 1 << 20
_HEADER = 512
_LONGEST_NAME = 1 << 20
_ALWAYS = 64 << 20
_MOST_INFLATION = 100
"""Bytes that one byte of an archive may unpack to: images and tables unpack to a few."""


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
        ArtifactError: if it is damaged or no archive, a file in it would go elsewhere, it unpacks to
            more than `_MOST_INFLATION` times its size, or the file system refuses to write.
    """
    source, target = Path(archive), Path(folder)
    count = 0
    packed = source.stat().st_size
    left = max(_ALWAYS, _MOST_INFLATION * packed)
    try:
        with (progress or silent)(packed) as counter:
            for member in _members(source):
                path = _place(target, member.name, source)
                left -= _HEADER
                there = path.stat().st_size if path.is_file() else None
                if there is not None and there == member.size:
                    left -= there
                else:
                    with atomic_path(path) as temporary, temporary.open("wb") as sink:
                        left = _copy(member, sink, left, source)
                counter.advance(member.size or 0)
                count += 1
    except _DAMAGE as error:
        raise ArtifactError(
            f"{source} is damaged or no archive that can be unpacked here ({error}); delete it and "
            "run again, or unpack it by hand"
        ) from error
    return count


def _copy(member: _Member, sink: IO[bytes], left: int, source: Path) -> int:
    """Write a file, and return how many more bytes may be written."""
    while left >= 0 and (data := _read(member.content)):
        left -= len(data)
        if left >= 0:
            sink.write(data)
    if left < 0:
        raise ArtifactError(
            f"{source} unpacks to more than {_MOST_INFLATION} times its size (at {member.name!r}), which "
            "no set of images does; unpack it by hand if you trust it"
        )
    return left


def _read(content: IO[bytes]) -> bytes:
    try:
        return content.read(_CHUNK)
    except OSError as error:
        # bz2 says so of damage.
        raise EOFError(str(error)) from error


def _members(source: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(source):
        yield from _zipped(source)
    elif _is_tar(source):
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


def _is_tar(source: Path) -> bool:
    try:
        with tarfile.open(source, tarinfo=_ShortNamed) as archive:
            # Zeros are a tar file without a file: such is the content of some compressed arrays.
            return archive.next() is not None
    except tarfile.ReadError:
        return False


def _tarred(source: Path) -> Iterator[_Member]:
    with tarfile.open(source, tarinfo=_ShortNamed) as archive:
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


class _ShortNamed(tarfile.TarInfo):
    """A header of a tar file; what names and notes a file in more than a megabyte is refused unread."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _NAMING and found.size > _LONGEST_NAME:
            # No error of tarfile's, which would be taken for another kind of file.
            raise ValueError(f"a name in it has {found.size} bytes")
        return found


_NAMING = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE),
    tarfile.SOLARIS_XHDTYPE,
)


def _place(folder: Path, name: str, source: Path) -> Path:
    """Return where a file goes; nothing on the way there may be a link, to wherever it leads."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ArtifactError(f"{source} holds {name!r}, which would be put outside of its folder")
    place = folder
    for part in path.parts:
        place /= part
        if place.is_symlink():
            raise ArtifactError(
                f"{source} holds {name!r}, but {place} is a link; remove the link, or unpack the "
                "archive by hand where it leads"
            )
    return place
