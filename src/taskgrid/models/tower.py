"""Image towers as modules: building one from a card, and loading a state into it, always strictly."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch

# open_clip has no public constructor of the image tower alone; all its models use this one.
from open_clip.model import _build_vision_tower
from torch import nn

from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard


def build_tower(card: ModelCard) -> nn.Module:
    """Build the image tower that a card describes: evaluation mode, frozen, random weights.

    The caller loads a state into it. The process's random state is left as it was.
    """
    config = copy.deepcopy(dict(card.tower))
    vision = config["vision_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    with torch.random.fork_rng(devices=[]):
        tower = _build_vision_tower(
            config["embed_dim"], vision, quick_gelu=bool(config.get("quick_gelu", False))
        )
    return cast(nn.Module, tower).eval().requires_grad_(False)


def fixed_keys(card: ModelCard) -> frozenset[str]:
    """Return the parameters that no training of this architecture moves: sine position codes."""
    learnable = card.tower["vision_cfg"].get("pos_embed_type", "learnable") == "learnable"
    return frozenset() if learnable else frozenset({"positional_embedding"})


def load_strictly(
    module: nn.Module, state: Mapping[str, torch.Tensor], what: str, where: str
) -> None:
    """Copy a state into a module, cast to the module's dtypes.

    Raises:
        LineageError: if a key is missing or unknown, or a shape or the kind of numbers differs; the
            text calls the state ``what`` and the module ``where``.
    """
    own = module.state_dict()
    for key in sorted(own.keys() | state.keys()):
        if key not in state:
            raise LineageError(f"{what} lack {key!r}, which {where} needs")
        if key not in own:
            raise LineageError(f"{what} hold {key!r}, which {where} does not have")
        if state[key].is_floating_point() != own[key].is_floating_point():
            raise LineageError(
                f"{what} have {key!r} as {str(state[key].dtype).removeprefix('torch.')}, but {where} "
                f"needs {str(own[key].dtype).removeprefix('torch.')}; give weights that are not quantised"
            )
        if state[key].shape != own[key].shape:
            raise LineageError(
                f"{what} have shape {tuple(state[key].shape)} for {key!r}, "
                f"but {where} needs {tuple(own[key].shape)}"
            )
    module.load_state_dict(dict(state), strict=True)
