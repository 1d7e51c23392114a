"""A mode that a test makes up: tangent training, held still on the images of the other tasks."""

from __future__ import annotations

from typing import cast

import torch

from taskgrid.finetuning.modes.seam import Others, Trainee
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.linearized import LinearizedEncoder
from taskgrid.plugins.cards import ModeCard
from taskgrid.plugins.options import Option, Options

CARD = ModeCard(
    title="Made up",
    tangent=True,
    others=("images",),
    options={
        "weight": Option(default=0.5, about="of the penalty"),
        "images": Option(default=4, about="images of another task per update"),
    },
)


class Still(Trainee):
    """Mean norm of J tau over images of one other task, each in its turn."""

    def __init__(self, encoder: LinearizedEncoder, options: Options, others: Others) -> None:
        super().__init__(encoder)
        self.options = options
        self.draws = [others.images[task] for task in sorted(others.images)]

    def penalty(self, step: int) -> torch.Tensor | None:
        number, place = divmod(step, len(self.draws))
        images = self.draws[place](number, self.options.images)
        linear = cast(LinearizedEncoder, self.encoder)
        start = dict(linear.origin.named_parameters())
        tau = {name: p - start[name] for name, p in linear.tower.named_parameters()}
        norms = linear.tangent(images, tau).norm(dim=1)
        return cast(torch.Tensor, self.options.weight * norms.mean())


class Made:
    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        linear = LinearizedEncoder(encoder.tower, encoder.card)
        linear.tower.requires_grad_(True)
        return Still(linear, options, others)


MODE = Made()
