"""Alignment: how task vectors of one base come to another. One file per aligner."""

# The package of the aligners first: loading it later would put it in the function's place.
import taskgrid.alignment.aligners  # noqa: F401
from taskgrid.alignment.door import aligners, transport
from taskgrid.alignment.maps import Axes, Transport
from taskgrid.alignment.seam import AlignContext, Aligner, Side

__all__ = ["AlignContext", "Aligner", "Axes", "Side", "Transport", "aligners", "transport"]
