"""Alignment: how task vectors of one base come to another. One file per aligner.

What runs networks is looked up when first used: who applies a transport does not import them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# The package of the aligners first: loading it later would put it in the function's place.
import taskgrid.alignment.aligners  # noqa: F401
from taskgrid import plugins
from taskgrid.alignment.maps import Axes, Transport
from taskgrid.alignment.sides import Side

if TYPE_CHECKING:
    from taskgrid.alignment.door import transport
    from taskgrid.alignment.seam import AlignContext, Aligner

_HOMES = {
    "AlignContext": "taskgrid.alignment.seam",
    "Aligner": "taskgrid.alignment.seam",
    "transport": "taskgrid.alignment.door",
}

__all__ = ["AlignContext", "Aligner", "Axes", "Side", "Transport", "aligners", "transport"]


def aligners() -> tuple[str, ...]:
    """Return the names of all aligners, sorted."""
    return tuple(sorted(plugins.names("aligner")))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
