"""Section `statistics`."""

from __future__ import annotations

from taskgrid.config.sections.plugin import PluginSpec


class StatisticSpec(PluginSpec):
    """A statistic of data that methods or modes need; one that is not listed is made with its defaults."""

    kind = "statistic"
