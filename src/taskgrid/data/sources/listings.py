"""What lies in a folder, as a person sees it, and how messages call it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from taskgrid.errors import DataError

_SHOWN = 5


def visible(folder: Path) -> list[Path]:
    """Return what lies in a folder and is not hidden, by name.

    Raises:
        DataError: if the folder cannot be listed, or holds a link that leads nowhere.
    """
    return [path for path, _ in _entries(folder)]


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders among `visible`."""
    return [path for path, is_folder in _entries(folder) if is_folder]


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    try:
        with os.scandir(folder) as entries:
            shown = sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed ({error.strerror}); make it readable"
        ) from error
    found = []
    for entry in shown:
        path = folder / entry.name
        if entry.is_symlink() and not path.exists():
            raise dangling(path)
        found.append((path, entry.is_dir()))
    return found


def dangling(path: Path) -> DataError:
    """Return the sentence that refuses a link that leads nowhere."""
    return DataError(
        f"{path} is a link to {path.readlink()}, where nothing is; put it there again, or remove the "
        "link"
    )


def endings(paths: Sequence[Path]) -> str:
    """Count files by their endings: ``.gif (2), .txt (1)``."""
    counts = Counter(path.suffix.lower() or "no ending" for path in paths)
    return ", ".join(f"{ending} ({count})" for ending, count in sorted(counts.items()))


def shown(path: Path, root: Path) -> str:
    """Return a path below a folder as text that can always be printed."""
    return path.relative_to(root).as_posix().encode(errors="backslashreplace").decode()


def listed(paths: Sequence[Path], between: str = " and ") -> str:
    """Return the names of paths, the first few of many."""
    names = [shown(path, path.parent) for path in paths[:_SHOWN]]
    more = f" (and {len(paths) - _SHOWN} more)" if len(paths) > _SHOWN else ""
    return between.join(names) + more
