"""The two layouts of CLIP checkpoints: transformers' names to open_clip's and back, exactly.

transformers keeps query, key and value apart and multiplies with the transposed projection;
open_clip fuses the three and multiplies with the projection itself. Tensors are joined, cut and
transposed, never computed with: both directions are exact in every bit, and one undoes the other.

A checkpoint's file does not say whose activation it was trained with, nor how many heads it has:
that stands in the configuration beside it (`taskgrid.models.hub.declared`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard
from taskgrid.models.tower import build_tower
from taskgrid.store.weights import State

LAYOUT = "transformers"
"""Name of the other layout in lineages: split q, k and v, projection transposed or absent."""

_VISION = "vision_model."
_TEXT = "text_model."
_PROJECTION = "proj"

# open_clip's name on the right. In a state of both towers the text tower's names are open_clip's
# own, and those of the image tower follow "visual.".
_VISION_NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_TEXT_NAMES = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_BLOCK_NAMES = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_THEIR_PROJECTION = "visual_projection.weight"
_QKV = ("q", "k", "v")

# Position ids are numbers from 0 up, saved as a buffer by older releases of transformers.
_NO_WEIGHT = re.compile(r"(?:^|\.)embeddings\.position_ids$")
_BLOCK = re.compile(r"^encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")
_SPLIT = re.compile(r"^encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$")
_OWN_BLOCK = re.compile(r"^transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")


def is_transformers(keys: Iterable[str]) -> bool:
    """Return whether keys are those of transformers' CLIP, with or without a text tower."""
    return any(key.endswith("embeddings.patch_embedding.weight") for key in keys)


def to_open_clip(
    state: Mapping[str, torch.Tensor], card: ModelCard, what: str = "the weights"
) -> State:
    """Return the state of an image tower in open_clip's layout; dtypes stay as they are.

    The state may be that of a ``CLIPVisionModel`` (no projection; its keys begin with
    ``vision_model.`` up to release 4 and with nothing from release 5 on), of a
    ``CLIPVisionModelWithProjection`` or of a whole ``CLIPModel``, whose text tower is left out.

    Args:
        state: the tensors of the checkpoint.
        card: the card of the base, which says what the tower should look like.
        what: what the messages call the weights.

    Returns:
        The state, without ``proj`` where the checkpoint has no projection.

    Raises:
        LineageError: if a tensor is unknown or missing, or has another shape than the card's tower
            needs; names the tensor and both shapes.
    """
    kept = {key: tensor for key, tensor in state.items() if not _of_text_tower(key)}
    converted = _vision(kept, what)
    _check(converted, card, what)
    return converted


def clip_to_open_clip(state: Mapping[str, torch.Tensor], what: str = "the weights") -> State:
    """Return the state of a whole ``CLIPModel`` with the keys of open_clip's ``CLIP``.

    Raises:
        LineageError: if a tensor is unknown, or one of q, k and v is missing. Whether all are there
            is known when the state is loaded, strictly, into a model.
    """
    vision: State = {}
    text: State = {}
    converted: State = {}
    for key, tensor in state.items():
        if key == "logit_scale":
            converted[key] = tensor
        elif key == "text_projection.weight":
            converted["text_projection"] = tensor.T.contiguous()
        elif key.startswith(_TEXT):
            text[key.removeprefix(_TEXT)] = tensor
        else:
            vision[key] = tensor
    converted.update(_renamed(text, _TEXT_NAMES, what, _TEXT))
    tower = _vision(vision, what)
    return {**converted, **{f"visual.{key}": tensor for key, tensor in tower.items()}}


def to_transformers(state: Mapping[str, torch.Tensor]) -> State:
    """Return an image tower's state with the keys of ``CLIPVisionModelWithProjection``.

    Args:
        state: a state in open_clip's layout; without ``proj`` it becomes that of a
            ``CLIPVisionModel``.

    Raises:
        LineageError: if the tower has a part that transformers' CLIP has not.
    """
    names = {own: theirs for theirs, own in _VISION_NAMES.items()}
    parts = {own: theirs for theirs, own in _BLOCK_NAMES.items()}
    converted: State = {}
    for key, tensor in state.items():
        block = _OWN_BLOCK.match(key)
        if key in names:
            converted[_VISION + names[key]] = tensor
        elif key == _PROJECTION:
            converted[_THEIR_PROJECTION] = tensor.T.contiguous()
        elif block and block[2] == "attn.in_proj":
            place = f"{_VISION}encoder.layers.{block[1]}.self_attn"
            for part, piece in zip(_QKV, tensor.chunk(3), strict=True):
                converted[f"{place}.{part}_proj.{block[3]}"] = piece.clone()
        elif block and block[2] in parts:
            converted[f"{_VISION}encoder.layers.{block[1]}.{parts[block[2]]}.{block[3]}"] = tensor
        else:
            raise LineageError(
                f"the image tower has {key!r}, which transformers' CLIP does not know; only plain "
                "vision transformers can be converted"
            )
    return converted


def _of_text_tower(key: str) -> bool:
    return key.startswith(_TEXT) or key in ("text_projection.weight", "logit_scale")


def _vision(state: Mapping[str, torch.Tensor], what: str) -> State:
    """Convert the image tower; ``proj`` comes last, where there is one."""
    inner = {key: tensor for key, tensor in state.items() if key != _THEIR_PROJECTION}
    prefix = _VISION if any(key.startswith(_VISION) for key in inner) else ""
    for key in sorted(inner):
        if not key.startswith(prefix):
            raise LineageError(
                f"{what} hold {key!r}, which is no tensor of transformers' CLIP; give a CLIP "
                "checkpoint without further parts"
            )
    converted = _renamed(
        {key.removeprefix(prefix): tensor for key, tensor in inner.items()},
        _VISION_NAMES,
        what,
        prefix,
    )
    if _THEIR_PROJECTION in state:
        converted[_PROJECTION] = state[_THEIR_PROJECTION].T.contiguous()
    return converted


def _renamed(
    state: Mapping[str, torch.Tensor], names: Mapping[str, str], what: str, prefix: str
) -> State:
    converted: State = {}
    fused: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        split, block = _SPLIT.match(key), _BLOCK.match(key)
        if key in names:
            converted[names[key]] = tensor
        elif split:
            own = f"transformer.resblocks.{split[1]}.attn.in_proj_{split[3]}"
            fused.setdefault(own, {})[split[2]] = tensor
        elif block and block[2] in _BLOCK_NAMES:
            own = f"transformer.resblocks.{block[1]}.{_BLOCK_NAMES[block[2]]}.{block[3]}"
            converted[own] = tensor
        elif not _NO_WEIGHT.search(key):
            raise LineageError(
                f"{what} hold {prefix + key!r}, which is no tensor of transformers' CLIP; give a CLIP "
                "checkpoint without further parts"
            )
    for own, parts in fused.items():
        number, kind = own.split(".")[2], own.rpartition("_")[2]
        place = f"{prefix}encoder.layers.{number}.self_attn"
        absent = [part for part in _QKV if part not in parts]
        if absent:
            raise LineageError(
                f"{what} lack '{place}.{absent[0]}_proj.{kind}', though they have others of that "
                "layer; fetch the file again"
            )
        shapes = {tuple(tensor.shape) for tensor in parts.values()}
        if len(shapes) > 1:
            raise LineageError(
                f"{what} have q, k and v of different shapes in '{place}' "
                f"({', '.join(map(str, sorted(shapes)))}); open_clip's attention needs equal ones"
            )
        converted[own] = torch.cat([parts[part] for part in _QKV])
    return converted


def _check(state: Mapping[str, torch.Tensor], card: ModelCard, what: str) -> None:
    # Shapes only: nothing is allocated.
    with torch.device("meta"):
        tower = build_tower(card).state_dict()
    where = f"the image tower of {card.architecture!r}"
    if _PROJECTION not in state:
        tower.pop(_PROJECTION, None)
    for key in sorted(tower.keys() | state.keys()):
        if key not in state:
            raise LineageError(f"{what} lack {_their_name(key)!r}, which {where} needs as {key!r}")
        if key not in tower:
            raise LineageError(
                f"{what} hold {_their_name(key)!r}, which {where} does not have; give the "
                "architecture that they were made with"
            )
        if state[key].shape != tower[key].shape:
            raise LineageError(
                f"{what} have shape {tuple(state[key].shape)} for {key!r} "
                f"({_their_name(key)!r} in transformers), but {where} needs "
                f"{tuple(tower[key].shape)}; give the architecture that they were made with"
            )


def _their_name(key: str) -> str:
    block = _OWN_BLOCK.match(key)
    if key == _PROJECTION:
        return _THEIR_PROJECTION
    if block and block[2] == "attn.in_proj":
        return f"encoder.layers.{block[1]}.self_attn.q_proj.{block[3]}"
    parts = {own: theirs for theirs, own in _BLOCK_NAMES.items()}
    if block and block[2] in parts:
        return f"encoder.layers.{block[1]}.{parts[block[2]]}.{block[3]}"
    return {own: theirs for theirs, own in _VISION_NAMES.items()}.get(key, key)
