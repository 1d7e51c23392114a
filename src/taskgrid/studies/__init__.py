"""Studies: questions asked of grid points. One module each, registered as plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from taskgrid import plugins
from taskgrid.plugins.cards import plugin_options
from taskgrid.studies.seam import Study


def get_study(name: str, options: Mapping[str, Any] | None = None) -> Study:
    """Return a study by name.

    Raises:
        ConfigError: if there is no such study or option; the text lists those that exist.
    """
    made = plugins.load("study", name).STUDY(plugin_options("study", name, options or {}))
    return cast(Study, made)
