"""Standard fine-tuning: the whole image tower trains, its projection included."""

from __future__ import annotations

from taskgrid.finetuning.modes.seam import Others, Trainee, train_only
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.tower import fixed_keys
from taskgrid.plugins.cards import ModeCard
from taskgrid.plugins.options import Options

CARD = ModeCard(
    title="Standard fine-tuning",
    paper="Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, appendix B",
)


class Standard:
    """Trains every parameter that the architecture trains. No options."""

    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        """Return the encoder with all its parameters training."""
        fixed = fixed_keys(encoder.card)
        return train_only(encoder, lambda key: key not in fixed)


MODE = Standard()
