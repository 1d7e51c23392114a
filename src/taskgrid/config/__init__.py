"""The configuration: typed, validated, with messages for people.

The public names are looked up when first used: who needs one section does not import the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskgrid.config.experiment import Experiment
    from taskgrid.config.load import merge_overlay, parse_config, read_config, read_entries
    from taskgrid.config.root import Config
    from taskgrid.config.sections.task import TaskSpec

_HOMES = {
    "Config": "taskgrid.config.root",
    "Experiment": "taskgrid.config.experiment",
    "TaskSpec": "taskgrid.config.sections.task",
    "merge_overlay": "taskgrid.config.load",
    "parse_config": "taskgrid.config.load",
    "read_config": "taskgrid.config.load",
    "read_entries": "taskgrid.config.load",
}

__all__ = [
    "Config",
    "Experiment",
    "TaskSpec",
    "merge_overlay",
    "parse_config",
    "read_config",
    "read_entries",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
