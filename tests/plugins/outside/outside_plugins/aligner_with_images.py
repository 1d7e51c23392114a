"""Hidden units of the target are those of the source that are busy on the same images."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from taskgrid.alignment import AlignContext, Transport
from taskgrid.alignment.spaces import spaces_of
from taskgrid.plugins.cards import AlignerCard

CARD = AlignerCard(title="Hidden units that are busy together", sees="images")


class Together:
    def align(self, context: AlignContext) -> Transport:
        spaces = spaces_of(context.target.the_card(), context.target.end.shapes)
        maps = {}
        for space, found in context.moments().items():
            if space.endswith(".mlp"):
                maps[space] = torch.from_numpy(linear_sum_assignment(found, maximize=True)[1])
        return context.transport_by(spaces.axes_by(maps))


ALIGNER = Together()
