"""Standard fine-tuning: the whole image tower trains, its projection included."""

from __future__ import annotations

from taskgrid.finetuning.modes.seam import Trainee, train_only
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.tower import fixed_keys
from taskgrid.plugins.options import Options as PluginOptions


class Standard:
    """Trains every parameter that the architecture trains. No options."""

    name = "standard"
    Options: type[PluginOptions] = PluginOptions

    def prepare(self, encoder: ImageEncoder, options: PluginOptions, seed: int) -> Trainee:
        """Return the encoder with all its parameters training."""
        fixed = fixed_keys(encoder.card)
        return train_only(encoder, lambda key: key not in fixed)


MODE = Standard()
