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
        changes["allow_overlap"] = task.duplicates == "refuse"
    return task.model_copy(update=changes)


def files_of(task: TaskSpec) -> tuple[str, ...]:
    """Return the files and folders that a task's images, class names and prompts come from.

    Published images are not among them: the download rule looks after those.
    """
    files = [value for value in (task.classes, task.templates) if isinstance(value, str)]
    if task.path is None or task.source == "published":
        return tuple(files)
    data = Path(task.path).expanduser()
    folder = data.parent if data.is_file() else data
    # Class names may lie with the data: beside an archive under their usual name.
    files = [name if Path(name).expanduser().exists() else _below(folder, name) for name in files]
    files += [str(folder / _USUAL)] if data.is_file() and (folder / _USUAL).is_file() else []
    return (task.path, *files)


_USUAL = "classes.json"


def _below(folder: Path, name: str) -> str:
    return str(folder / name) if (folder / name).is_file() else name
