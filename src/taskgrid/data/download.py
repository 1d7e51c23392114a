"""Bringing a published data set to this machine, or finding it there.

What is there already is not downloaded again, and needs no network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from taskgrid.data.published.description import Description
from taskgrid.data.published.downloaded import Download, DownloadedFile
from taskgrid.data.published.request import Published
from taskgrid.data.sources.opening import open_source
from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import DataError
from taskgrid.machine.meter import Meter, silent
from taskgrid.provenance.listing import fingerprint
from taskgrid.remote.archives import unpack
from taskgrid.remote.files import download
from taskgrid.remote.hub import fetch

Say = Callable[[str], None]


def obtain(
    task: TaskData,
    *,
    offline: bool = False,
    say: Say = print,
    progress: Meter | None = None,
) -> Download:
    """Download a published data set unless it is there, and return what is there.

    Licence and terms are said before anything is downloaded. In the end the data set is opened:
    classes and numbers of images are then known to be right.

    Args:
        task: the task.
        offline: never use the network; then all must be there.
        say: takes lines for a person.
        progress: called with the number of bytes, for each download.

    Raises:
        DataError: if files must be put there by hand, or are not what the description says.
        RemoteError: if something cannot be downloaded.
        ArtifactError: if a file is damaged, or cannot be written.
    """
    published = Published.of(task)
    say(_conditions(published.description))
    if published.options.layout == "hub":
        return _from_hub(task, published, offline, progress or silent)
    return _from_owners(task, published, offline, say, progress or silent)


def _conditions(description: Description) -> str:
    terms = f" {description.terms}" if description.terms else ""
    return f"{description.title}. Licence: {description.licence}.{terms} See {description.homepage}"


def _from_hub(task: TaskData, published: Published, offline: bool, progress: Meter) -> Download:
    hub, description = published.hub, published.description
    found = fetch(
        hub.repository,
        revision=hub.revision,
        patterns=tuple(hub.files.values()),
        cache=task.path,
        offline=offline,
        progress=progress,
    )
    open_source(task)
    return Download(
        dataset=description.name,
        layout="hub",
        licence=description.licence,
        terms=description.terms,
        homepage=description.homepage,
        files=tuple(DownloadedFile(file.name, file.bytes, file.sha256) for file in found.files),
        repository=found.repository,
        revision=found.revision,
        commit=found.commit,
    )


def _from_owners(
    task: TaskData, published: Published, offline: bool, say: Say, progress: Meter
) -> Download:
    description = published.description
    original = description.original
    try:
        open_source(task)
    except DataError:
        if offline or not original.files:
            say(f"The files of {description.title} belong below {task.path}:\n{original.place}")
            raise
        _download(Path(task.path or "."), description, say, progress)
        open_source(task)
    root = Path(task.path or ".")
    return Download(
        dataset=description.name,
        layout="original",
        licence=description.licence,
        terms=description.terms,
        homepage=description.homepage,
        files=tuple(
            DownloadedFile(file.to, file.bytes, file.sha256, file.md5, file.url)
            for file in original.files
        ),
        placed=_placed(root, original.needs),
    )


def _download(root: Path, description: Description, say: Say, progress: Meter) -> None:
    for file in description.original.files:
        say(f"{file.url} -> {root / file.to}")
        path = download(
            file.url, root / file.to, md5=file.md5, sha256=file.sha256, progress=progress
        )
        if file.unpack:
            unpack(path, path.parent, progress)


def _placed(root: Path, needs: tuple[str, ...]) -> dict[str, str]:
    """Return digests of the listings of what lies there, for whoever depends on it."""
    there = [name for name in needs if (root / name).exists()]
    # In another form than the described one: all of it counts.
    return {name: fingerprint(root / name) for name in (there if len(there) == len(needs) else ".")}
