"""Section `export`."""

from __future__ import annotations

from taskgrid.config.sections.values import Positive, Section


class ExportSpec(Section):
    """Grid points as files."""

    max_mb: Positive = 1024
    """Memory that the tensors of a merge may take while it is written, in MB."""
