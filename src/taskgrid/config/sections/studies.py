"""Section `studies`."""

from __future__ import annotations

from taskgrid.config.sections.plugin import PluginSpec


class StudySpec(PluginSpec):
    """A question asked of the grid, with its options."""

    kind = "study"
