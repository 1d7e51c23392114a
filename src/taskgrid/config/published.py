"""Which data sets of the literature the project describes: one file each in `resources/tasks`."""

from __future__ import annotations

from functools import cache

from taskgrid.resources import resource_path


@cache
def published_names() -> tuple[str, ...]:
    """Return the names of the described data sets, sorted."""
    return tuple(sorted(path.stem for path in resource_path("tasks").glob("*.yaml")))
