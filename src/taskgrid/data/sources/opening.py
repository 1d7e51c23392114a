"""Opening the source of a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from taskgrid import plugins
from taskgrid.data.sources.picked import limited
from taskgrid.data.sources.seam import Source, TaskData
from taskgrid.errors import DataError


def open_source(task: TaskData) -> Source:
    """Open the source of a task; nothing is decoded yet.

    With a `limit`, just so many images of each split are there.

    Raises:
        ConfigError: if there is no such source or built-in task.
        DataError: if the path is missing, the data are damaged or inconsistent, or an option of
            the source is unknown.
        SplitError: if there is no training split.
    """
    with about(task):
        source: Source = plugins.load("source", task.source).open_task(task)
        return source if task.limit is None else limited(source, task.limit)


@contextmanager
def about(task: TaskData) -> Iterator[None]:
    """Put the task's name before the message of any `DataError` raised in this block."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"task {task.name!r}: {error}") from error
