"""Merging: how task vectors become one model. One file per method."""

# The package of the methods first: loading it later would put it in the function's place.
import taskgrid.merging.methods  # noqa: F401
from taskgrid.merging.door import merge, merge_per_task, methods
from taskgrid.merging.seam import MergeContext, Merger, Prepared

__all__ = ["MergeContext", "Merger", "Prepared", "merge", "merge_per_task", "methods"]
