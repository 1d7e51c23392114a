"""The built-in tasks as a source: the task's name says which one."""

from __future__ import annotations

from collections.abc import Iterator

from taskgrid.data.builtin import BuiltinTask, builtin_names, builtin_task, samples
from taskgrid.data.classnames import resolve_classes, resolve_templates
from taskgrid.data.sources.options import SourceOptions, parse_options
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.errors import DataError
from taskgrid.sentences import choices
from taskgrid.store.images import SPLITS, Pixels, Split


class BuiltinSource(Source):
    """Images that are rendered, or shipped with a dependency."""

    def __init__(self, task: TaskData, builtin: BuiltinTask) -> None:
        """Take class names and templates from the built-in task, where the task gives none."""
        parse_options(task, SourceOptions)
        self._builtin = builtin
        self.classes = resolve_classes(task, own=builtin.classes)
        self.templates = resolve_templates(task, default=builtin.templates)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits the task has."""
        return tuple(split for split in SPLITS if split in self._builtin.counts)

    def count(self, split: Split) -> int:
        """Return the number of images of a split."""
        return self._builtin.counts[split]

    def entries(self, split: Split) -> Iterator[Entry]:
        """Render the images of a split one by one."""
        for sample in samples(self._builtin, split):
            yield Entry(sample.id, sample.label, _Ready(sample.pixels))


class _Ready:
    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def __call__(self) -> Pixels:
        return self._pixels


def open_task(task: TaskData) -> BuiltinSource:
    """Open the built-in task of this name.

    Raises:
        DataError: if there is no such task; the text lists those that exist.
    """
    known = builtin_names()
    if task.name not in known:
        raise DataError(
            f"there is no built-in task {task.name!r}; {choices(task.name, known)} "
            "(a task of your own needs `source` and `path`)"
        )
    return BuiltinSource(task, builtin_task(task.name))
