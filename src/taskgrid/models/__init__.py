"""CLIP image towers, their text heads, and inference with them.

The public names are looked up when first used: a job that needs one module of this package neither
imports open_clip for the others nor depends on their code.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Clip": "taskgrid.models.clip",
    "Head": "taskgrid.models.heads",
    "ImageEncoder": "taskgrid.models.encoder",
    "LinearizedEncoder": "taskgrid.models.linearized",
    "ModelCard": "taskgrid.models.card",
    "build_head": "taskgrid.models.heads",
    "load_clip": "taskgrid.models.clip",
}

__all__ = [
    "Clip",
    "Head",
    "ImageEncoder",
    "LinearizedEncoder",
    "ModelCard",
    "build_head",
    "load_clip",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
