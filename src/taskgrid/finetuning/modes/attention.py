"""Attention-only fine-tuning: the projections of the attention modules train, and nothing else.

Jin et al., "Fine-Tuning Attention Modules Only: Enhancing Weight Disentanglement in Task Arithmetic"
(ICLR 2025).
"""

from __future__ import annotations

from taskgrid.finetuning.modes.seam import Others, Trainee, train_only
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.layout import projection_of
from taskgrid.plugins.cards import ModeCard
from taskgrid.plugins.options import Option, Options

CARD = ModeCard(
    title="Attention-only fine-tuning",
    paper="Jin et al., Fine-Tuning Attention Modules Only, ICLR 2025, section 4",
    options={
        "biases": Option(
            default=False,
            about="whether the biases of the projections train, too",
            origin="Jin et al. train weights alone (`linear-2` in their code)",
        )
    },
)


class Attention:
    """Trains query, key, value and output projections of every block, a third of a ViT's weights."""

    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        """Return the encoder with its attention projections training."""
        return train_only(
            encoder,
            lambda key: (
                projection_of(key) in ("qkv", "attention_out")
                and (options.biases or not key.endswith("bias"))
            ),
        )


MODE = Attention()
