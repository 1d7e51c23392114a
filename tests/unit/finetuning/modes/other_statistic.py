"""A mode that a test makes up: weights that matter to the other tasks are held near the base."""

from __future__ import annotations

import torch

from taskgrid.finetuning.modes.seam import Others, Trainee
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.cards import ModeCard
from taskgrid.plugins.options import Options

CARD = ModeCard(title="Made up", others=("importance",))


class Held(Trainee):
    """Half the sum over tasks and weights of importance times squared distance from the base."""

    def __init__(self, encoder: ImageEncoder, others: Others) -> None:
        super().__init__(encoder)
        self.names = list(encoder.state())
        for name, tensor in encoder.state().items():
            importance = sum(state[name] for state in others.statistics["importance"].values())
            key = name.replace(".", "/")
            self.register_buffer(f"importance/{key}", importance, persistent=False)
            self.register_buffer(f"start/{key}", tensor, persistent=False)

    def penalty(self, step: int) -> torch.Tensor | None:
        if step == 0:
            return None
        total = torch.zeros(())
        kept = dict(self.named_buffers())
        for name, weight in self.encoder.tower.named_parameters():
            key = name.replace(".", "/")
            total = total + (kept[f"importance/{key}"] * (weight - kept[f"start/{key}"]) ** 2).sum()
        return total / 2


class Made:
    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        encoder.tower.requires_grad_(True)
        return Held(encoder, others)


MODE = Made()
