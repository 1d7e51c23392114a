"""What a download brought: `download.json`, which the dataset is then read by.

It names everything by what it is and by nothing that is of this machine or this day: the same
download anywhere gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.store.atomic import read_json, write_json


@dataclass(frozen=True)
class DownloadedFile:
    """A file that was downloaded, or was there.

    Attributes:
        name: its path in the repository, or below the data set's folder.
        bytes: its size, where it is known.
        sha256: digest of its content; None where another one was checked.
        md5: its MD5, where that is the one that is known.
        url: where it came from; None for the hub's.
    """

    name: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Download:
    """A data set as it was downloaded.

    Attributes:
        dataset: name of its description.
        layout: ``hub`` or ``original``.
        licence: its licence, as the owners state it.
        terms: what its owners ask for.
        homepage: their page.
        files: the files.
        repository: the hub's repository.
        revision: what was asked for there.
        commit: what that is.
        placed: digest of the listing of what a person put there, by path.
    """

    dataset: str
    layout: str
    licence: str
    terms: str | None
    homepage: str
    files: tuple[DownloadedFile, ...] = ()
    repository: str | None = None
    revision: str | None = None
    commit: str | None = None
    placed: Mapping[str, str] | None = None

    def write(self, path: str | Path) -> None:
        """Write the manifest as JSON.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> Download:
        """Read a manifest.

        Raises:
            ArtifactError: if the file is missing or no manifest.
        """
        value = read_json(path)
        try:
            files = tuple(DownloadedFile(**file) for file in value["files"])
            return cls(**{**value, "files": files})
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path} is no manifest of a download ({error}); delete it and run again"
            ) from error
