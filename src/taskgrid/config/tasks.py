"""Tasks as rules ask for them: what is said for all at once is filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskgrid.config.root import Config
from taskgrid.config.sections.task import TaskSpec
from taskgrid.config.shipped import published_prompts


def resolved_task(task: TaskSpec, config: Config) -> TaskSpec:
    """Fill in what the configuration says for all tasks at once."""
    changes: dict[str, Any] = {"limit": task.limit or config.data.limit}
    if task.source == "published":
        layout = task.options.get("layout", config.data.layout)
        folder = config.data.folder
        if layout == "original":
            folder = folder or "data"
        changes["options"] = {"dataset": task.dataset, "layout": layout, **task.options}
        lineage = config.data.prompts
        if lineage is not None and lineage in published_prompts(task.dataset):
            changes["options"].setdefault("prompts", lineage)
        changes["path"] = task.path or folder
        # The papers take the official splits as they are, also where an image stands in two.
        changes["allow_overlap"] = True
    return task.model_copy(update=changes)


def files_of(task: TaskSpec) -> tuple[str, ...]:
    """Return the files and folders that a task's images, class names and prompts come from.

    Published images are not among them: the download rule looks after those.
    """
    files = [task.path] if task.path is not None and task.source != "published" else []
    files += [value for value in (task.classes, task.templates) if isinstance(value, str)]
    if files and task.path is not None and Path(task.path).is_file():
        # Class names that lie beside an archive are read with it.
        beside = Path(task.path).with_name("classes.json")
        files += [str(beside)] if beside.is_file() else []
    return tuple(files)
