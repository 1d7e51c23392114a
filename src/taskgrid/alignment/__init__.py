"""Alignment: how task vectors of one base come to another. One file per aligner."""

from taskgrid.alignment.door import aligners, transport
from taskgrid.alignment.maps import Axes, Transport
from taskgrid.alignment.seam import AlignContext, Aligner, Side

__all__ = ["AlignContext", "Aligner", "Axes", "Side", "Transport", "aligners", "transport"]
