"""The files below a folder, through links: what a person sees there is what is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from taskgrid.errors import DataError


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in no order; links are followed, hidden files left out.

    Hidden folders are caches and version control, not data. A link that leads nowhere is yielded as
    it is, and so is one to a folder that holds it.

    Raises:
        DataError: if a folder cannot be listed.
    """
    above = frozenset(map(_identity, folder.resolve().parents))
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, above)]
    while waiting:
        place, above = waiting.pop()
        try:
            here = _identity(place)
            if here in above:
                yield place
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        waiting.append((place / entry.name, above | {here}))
                    else:
                        yield place / entry.name
        except OSError as error:
            raise DataError(
                f"{place} cannot be listed ({error.strerror}); make it readable or move it away"
            ) from error


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino
