"""What a task source is asked for, and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskgrid.store.images import Pixels, Split


@dataclass(frozen=True)
class TaskData:
    """What a task's data depend on in its configuration.

    Attributes:
        name: name of the task.
        source: name of the source.
        path: folder or file of the source, relative to the working directory.
        limit: largest number of images of each of the source's own splits; None takes all.
        classes: class names in label order, or a file of them.
        templates: prompt templates, or a file of them.
        allow_overlap: whether an image may stand in two of the source's own splits.
        allow_missing_classes: whether a class may have no image in the source's own validation or
            test images.
        options: options of the source.
    """

    name: str
    source: str
    path: str | None = None
    limit: int | None = None
    classes: Sequence[str] | str | None = None
    templates: Sequence[str] | str | None = None
    allow_overlap: bool = False
    allow_missing_classes: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawImage:
    """An image as decoded: ``pixels`` is ``H x W x 3`` uint8, RGB."""

    id: str
    label: int
    pixels: Pixels


@dataclass(frozen=True)
class Entry:
    """An image that is not decoded yet; ``load`` decodes it and may run in any thread."""

    id: str
    label: int
    load: Callable[[], Pixels]


class Source(ABC):
    """A task's images, in an order of their own that never changes while the data do not."""

    classes: tuple[str, ...]
    """Class names; a label is an index into them."""

    templates: tuple[str, ...]
    """Prompt templates, each with one ``{}``."""

    notes: tuple[str, ...] = ()
    """What a person should know of how the data were read, such as what was left out."""

    @abstractmethod
    def splits(self) -> tuple[Split, ...]:
        """Return the splits the source has of its own, train first, then val, then test."""

    @abstractmethod
    def count(self, split: Split) -> int:
        """Return the number of images of a split."""

    @abstractmethod
    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the images of a split, not decoded.

        Raises:
            DataError: if the source is damaged.
        """

    def chosen(self, split: Split, rows: Sequence[int]) -> Iterator[Entry]:
        """Yield some images of a split, not decoded.

        Args:
            split: the split.
            rows: their places in the split, increasing.

        Raises:
            DataError: if the source is damaged.
        """
        wanted = frozenset(rows)
        return (entry for row, entry in enumerate(self.entries(split)) if row in wanted)

    def images(self, split: Split) -> Iterator[RawImage]:
        """Yield the images of a split, decoded one by one.

        Raises:
            DataError: if an image or the source is damaged.
        """
        for entry in self.entries(split):
            yield RawImage(entry.id, entry.label, entry.load())
