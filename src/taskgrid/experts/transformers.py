"""Experts in transformers' layout, such as the repositories ``tanganke/clip-vit-base-patch32_*``.

Those are ``CLIPVisionModel``s: without the projection, which their fine-tuning left as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from taskgrid.errors import LineageError
from taskgrid.experts.format import Converted, ExpertFormat
from taskgrid.experts.parts import left_out, places, the_only
from taskgrid.experts.source import ExpertFile
from taskgrid.models.card import ModelCard
from taskgrid.models.hub.conversion import LAYOUT, is_transformers, to_open_clip
from taskgrid.models.hub.declared import TRANSFORMERS_CONFIG

_LANDMARK: Final = "embeddings.patch_embedding.weight"


def convert(
    checkpoint: ExpertFile, card: ModelCard, base: Mapping[str, torch.Tensor], what: str
) -> Converted:
    """Return the image tower; the projection is the base's where the checkpoint has none.

    Raises:
        LineageError: if it is in another layout, or does not fit the card.
    """
    whole, _ = checkpoint.read()
    if not is_transformers(whole):
        raise LineageError(
            f"{what} is not in transformers' layout (it holds {min(whole, default='nothing')!r:.200}); "
            "write format: open_clip, or name the right file"
        )
    root = the_only(places(whole, _LANDMARK), what).removesuffix("vision_model.")
    state = {key.removeprefix(root): t for key, t in whole.items() if key.startswith(root)}
    notes = left_out({key: t for key, t in whole.items() if not key.startswith(root)}, root, what)
    if not checkpoint.check_declared(card, what):
        notes.append(f"no {TRANSFORMERS_CONFIG} beside it says its activation or number of heads")
    if any(key.startswith("text_model.") for key in state):
        notes.append("its text tower was left out: heads come from the base's")
    found = to_open_clip(state, card, f"the weights of {what}")
    projection = "own"
    if "proj" not in found and "proj" in base:
        projection, found["proj"] = "base", base["proj"].clone()
        notes.append("it has no projection: the base's was taken")
    return Converted(found, {"source_layout": LAYOUT, "projection": projection}, tuple(notes))


FORMAT = ExpertFormat(
    convert, usual=("model.safetensors", "pytorch_model.bin"), beside=(TRANSFORMERS_CONFIG,)
)
