"""Merging: how task vectors become one model. One file per method."""

from taskgrid.merging.seam import MergeContext, Merger, Prepared, get_merger, merge, methods

__all__ = ["MergeContext", "Merger", "Prepared", "get_merger", "merge", "methods"]
