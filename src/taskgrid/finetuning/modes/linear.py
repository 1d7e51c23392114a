"""Linear fine-tuning: the tangent model at theta_0 trains, in the space of its weights.

Ortiz-Jimenez et al., "Task Arithmetic in the Tangent Space" (NeurIPS 2023), section 5.
"""

from __future__ import annotations

from taskgrid.finetuning.modes.seam import Others, Trainee, train_only
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.linearized import LinearizedEncoder
from taskgrid.models.tower import fixed_keys
from taskgrid.plugins.cards import ModeCard
from taskgrid.plugins.options import Options

CARD = ModeCard(
    title="Linear fine-tuning",
    paper="Ortiz-Jimenez et al., Task Arithmetic in the Tangent Space, NeurIPS 2023, section 5",
    tangent=True,
)


class Linear:
    """Trains theta in f(x; theta_0) + J(x) (theta - theta_0). No options.

    The optimiser sees theta itself, so weight decay pulls towards zero as in mode ``standard``, not
    towards theta_0. The expert is theta_t in the base's layout; only as a tangent model is it what
    was trained.
    """

    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        """Return the tangent model at the encoder's weights, with all of theta training."""
        fixed = fixed_keys(encoder.card)
        return train_only(
            LinearizedEncoder(encoder.tower, encoder.card), lambda key: key not in fixed
        )


MODE = Linear()
