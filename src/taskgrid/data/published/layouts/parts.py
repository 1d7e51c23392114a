"""What a reader of original files takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from taskgrid.data.sources.options import SourceOptions
from taskgrid.store.images import Pixels, Split


@dataclass(frozen=True)
class Part:
    """The images of one split, not decoded.

    Attributes:
        ids: a name for each image that never changes: its path, or its number.
        labels: the class of each image: by its name in these files or, where the files have
            numbers alone, by its place in the owners' order.
        load: decodes the image of a row; may run in any thread.
    """

    ids: Sequence[str]
    labels: Sequence[str] | Sequence[int]
    load: Callable[[int], Pixels]


Parts = Mapping[Split, Part]


class LayoutSettings(SourceOptions):
    """Settings of a reader.

    Attributes:
        folder: where its files lie below the data set's folder; the folder itself, or the end of
            this path, will do as well.
    """

    folder: str = "."


class Reader(Protocol):
    """A module that reads a layout; beside `read` it has its `Settings`, of `LayoutSettings`."""

    def read(self, root: Path, settings: Any, splits: Sequence[Split]) -> Parts:
        """List the images of the splits that are wanted.

        Raises:
            DataError: if files are missing or damaged.
        """
