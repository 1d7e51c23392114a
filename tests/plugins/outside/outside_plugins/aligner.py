"""Each tensor of a vector is as long, beside the target's weights, as it was beside the source's."""

from __future__ import annotations

import torch

from taskgrid.alignment import AlignContext, Transport
from taskgrid.plugins.cards import AlignerCard

CARD = AlignerCard(title="Lengths relative to the base")


class Rescaled:
    def align(self, context: AlignContext) -> Transport:
        axes = {}
        for key, (rows, *_) in context.target.end.shapes.items():
            target, source = context.target.base[key], context.source.base[key]
            ratio = target.double().norm() / source.double().norm()
            axes[key] = (ratio * torch.eye(rows, dtype=torch.float64),)
        return context.transport_by(axes)


ALIGNER = Rescaled()
