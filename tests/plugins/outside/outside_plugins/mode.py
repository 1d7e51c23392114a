"""Only biases train."""

from __future__ import annotations

from taskgrid.finetuning.modes.seam import Others, Trainee, train_only
from taskgrid.models.encoder import ImageEncoder
from taskgrid.plugins.cards import ModeCard
from taskgrid.plugins.options import Options

CARD = ModeCard(title="Biases only", recipe={"weight_decay": 0.0})


class Biases:
    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        return train_only(encoder, lambda key: key.endswith("bias"))


MODE = Biases()
