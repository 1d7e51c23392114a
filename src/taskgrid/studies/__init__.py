"""Studies: questions asked of grid points. One module each, registered in `taskgrid.plugins`."""

from __future__ import annotations

from typing import cast

from taskgrid import plugins
from taskgrid.studies.seam import Study


def get_study(name: str) -> Study:
    """Return a study by name.

    Raises:
        ConfigError: if there is no such study; the text lists those that exist.
    """
    return cast(Study, plugins.load("study", name).STUDY)
