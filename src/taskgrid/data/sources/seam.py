"""What every task source offers, and how one is opened."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from taskgrid import plugins
from taskgrid.errors import DataError
from taskgrid.store.images import Pixels, Split


class TaskDescription(Protocol):
    """What a task's data depend on in its configuration (`taskgrid.config.TaskSpec` fits)."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def source(self) -> str:
        """Name of the source."""

    @property
    def path(self) -> str | None:
        """Folder or file of the source, relative to the working directory."""

    @property
    def limit(self) -> int | None:
        """Largest number of images of each of the source's own splits; None takes all."""

    @property
    def classes(self) -> Sequence[str] | str | None:
        """Class names in label order, or a file of them."""

    @property
    def templates(self) -> Sequence[str] | str | None:
        """Prompt templates, or a file of them."""

    @property
    def allow_overlap(self) -> bool:
        """Whether an image may stand in two of the source's own splits."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the source."""


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


def open_source(task: TaskDescription) -> Source:
    """Open the source of a task; nothing is decoded yet.

    With a `limit`, just so many images of each split are there.

    Raises:
        ConfigError: if there is no such source or built-in task.
        DataError: if the path is missing, the data are damaged or inconsistent, or an option of
            the source is unknown.
        SplitError: if there is no training split.
    """
    # Imported here: what picks from sources is built upon them.
    from taskgrid.data.sources.picked import limited

    with about(task):
        source: Source = plugins.load("source", task.source).open_task(task)
        return source if task.limit is None else limited(source, task.limit)


@contextmanager
def about(task: TaskDescription) -> Iterator[None]:
    """Put the task's name before the message of any `DataError` raised in this block."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"task {task.name!r}: {error}") from error


class SourceOptions(BaseModel):
    """Options of a source: unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Options = TypeVar("Options", bound=SourceOptions)


def parse_options(task: TaskDescription, model: type[Options]) -> Options:
    """Validate a task's options.

    Raises:
        DataError: if an option is unknown or does not fit; the text lists those that exist.
    """
    return check_options(task.options, model, f"the source {task.source!r}")


def check_options(
    options: Mapping[str, Any],
    model: type[Options],
    owner: str,
    beside: Iterable[str] = (),
) -> Options:
    """Validate options.

    Args:
        options: the options.
        model: what they are validated by.
        owner: whose options they are, for the text.
        beside: options of the same owner that were taken out.

    Raises:
        DataError: if an option is unknown or does not fit; the text lists those that exist.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    key = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        allowed = (*beside, *model.model_fields)
        raise DataError(
            f"{owner} has no option {key!r}; {did_you_mean(key, allowed)}"
            f"allowed: {', '.join(allowed) or 'none'}"
        )
    raise DataError(f"options.{key} is {problem['input']!r}; {problem['msg'].lower()}")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` for the closest allowed name, or nothing."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def required_path(task: TaskDescription) -> Path:
    """Return a task's path.

    Raises:
        DataError: if the task has none, or nothing lies there.
    """
    if task.path is None:
        raise DataError(f"the source {task.source!r} needs a path")
    path = Path(task.path).expanduser()
    if not path.exists():
        raise DataError(
            f"{path} does not exist (looked from {Path.cwd()}); "
            "correct `path`, or put the data there"
        )
    return path


def no_train_split(path: str | Path, found: str, expected: str) -> str:
    """Return the sentence that says a source lacks training images."""
    return f"{path} has no train split: {found}; {expected}"


def check_labels(split: Split, labels: Sequence[int], classes: int) -> None:
    """Refuse labels that name no class.

    Raises:
        DataError: with the first such label.
    """
    for row, label in enumerate(labels):
        if not 0 <= label < classes:
            hint = " (Hugging Face marks hidden test labels by -1)" if label == -1 else ""
            raise DataError(
                f"image {row} of {split} has label {label}, but there are "
                f"{classes} classes, so labels run from 0 to {classes - 1}{hint}"
            )


def check_unique(split: Split, ids: Iterable[str]) -> None:
    """Refuse two images of one name.

    Raises:
        DataError: with the first name that stands twice.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"the id {name!r} stands twice in {split}; ids must be unique")
        seen.add(name)


def numbered_id(split: Split, row: int) -> str:
    """Return the id of an image that has no name of its own."""
    return f"{split}/{row:07d}"
