"""The built-in tasks: small, deterministic, no downloads.

The first five are the default configuration's tasks; ``catalogue`` is the control task (the part
that ImageNet plays in the papers). ``print_digits : street_digits :: print_letters :
street_letters`` is the analogy.
"""

from __future__ import annotations

from taskgrid import plugins
from taskgrid.data.builtin.task import BuiltinTask, RenderedSample, sample, samples

DEFAULT_TASKS: tuple[str, ...] = plugins.names("builtin")[:5]
CONTROL_TASK = "catalogue"


def builtin_names() -> tuple[str, ...]:
    """Names of all built-in tasks, in registry order."""
    return plugins.names("builtin")


def builtin_task(name: str) -> BuiltinTask:
    """Look a built-in task up by name.

    Raises:
        ConfigError: if there is no such task; the text lists those that exist.
    """
    tasks: tuple[BuiltinTask, ...] = plugins.load("builtin", name).TASKS
    return {task.name: task for task in tasks}[name]


__all__ = [
    "CONTROL_TASK",
    "DEFAULT_TASKS",
    "BuiltinTask",
    "RenderedSample",
    "builtin_names",
    "builtin_task",
    "sample",
    "samples",
]
