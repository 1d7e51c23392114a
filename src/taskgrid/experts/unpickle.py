"""The one import of pickled checkpoints: tensors come out, and nothing that the file carries is run."""

from taskgrid.models.hub.unpickle import load_tensors

__all__ = ["load_tensors"]
