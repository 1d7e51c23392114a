"""What the keys of an image tower mean: which layer and which part of it a tensor belongs to.

This is the only place that knows how open_clip names the tensors of its towers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

LAYOUT = "open_clip"
"""Name of this key layout in lineages: fused ``in_proj``, ``proj`` used as ``x @ proj``."""

TowerPart = Literal["embedding", "attention", "mlp", "norm", "projection", "other"]

Projection = Literal["qkv", "attention_out", "mlp_in", "mlp_out"]
"""Weight matrices of a transformer block; ``qkv`` is fused, queries first, values last."""

_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks)\.(\d+)\.")
_STAGE = re.compile(r"^(layer\d+\.\d+)\.")
_EMBEDDING = re.compile(
    r"^(?:conv\d|bn\d|class_embedding|positional_embedding|ln_pre)\b|(?:^|\.)(?:patch_embed|cls_token|pos_embed)\b"
)
_OUTPUT = re.compile(r"^(?:ln_post|proj|attn_pool|attnpool|head)\b|^trunk\.(?:norm|fc_norm|head)\b")
_ATTENTION = re.compile(r"(?:^|\.)attn\.|^attnpool\.|^attn_pool")
_MLP = re.compile(r"(?:^|\.)mlp\.")
_NORM = re.compile(r"(?:^|\.)(?:ln_|norm|bn\d)")
_PROJECTIONS: Mapping[str, Projection] = {
    "attn.in_proj": "qkv",
    "attn.qkv": "qkv",
    "attn.out_proj": "attention_out",
    "attn.proj": "attention_out",
    "mlp.c_fc": "mlp_in",
    "mlp.fc1": "mlp_in",
    "mlp.c_proj": "mlp_out",
    "mlp.fc2": "mlp_out",
}
_PROJECTION = re.compile(r"(?:resblocks|blocks)\.\d+\.((?:attn|mlp)\.\w+?)[._](?:weight|bias)$")


def layer_of(key: str) -> str:
    """Return the layer a tensor belongs to: ``embedding``, ``block 3``, ``output``, ...

    Args:
        key: a key of an image tower's state, e.g. ``transformer.resblocks.3.attn.in_proj_weight``.
    """
    block = _BLOCK.search(key)
    if block:
        return f"block {int(block[1])}"
    stage = _STAGE.search(key)
    if stage:
        return stage[1]
    if _EMBEDDING.search(key):
        return "embedding"
    if _OUTPUT.search(key):
        return "output"
    return key.split(".", 1)[0]


def part_of(key: str) -> TowerPart:
    """Return what a tensor does in its layer.

    Args:
        key: a key of an image tower's state, e.g. ``transformer.resblocks.3.attn.in_proj_weight``.
    """
    if _ATTENTION.search(key):
        return "attention"
    if _MLP.search(key):
        return "mlp"
    if _NORM.search(key):
        return "norm"
    if _EMBEDDING.search(key):
        return "embedding"
    if key == "proj" or key.startswith("head."):
        return "projection"
    return "other"


def multiplies_right(key: str) -> bool:
    """Return whether a weight is used as ``x @ weight``, not as ``x @ weight.T`` like all others."""
    return key == "proj"


def projection_of(key: str) -> Projection | None:
    """Return which projection of a transformer block a tensor is the weight or the bias of.

    Args:
        key: a key of an image tower's state, e.g. ``transformer.resblocks.3.attn.in_proj_weight``.
    """
    found = _PROJECTION.search(key)
    return _PROJECTIONS.get(found[1]) if found else None


def layers(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the layers of a state from pixels to features.

    ``embedding`` comes first, ``output`` last, the numbered blocks between them by number.
    """
    return tuple(sorted({layer_of(key) for key in keys}, key=_depth))


def _depth(layer: str) -> tuple[int, tuple[int, ...], str]:
    rank = {"embedding": 0, "output": 2}.get(layer, 1)
    return rank, tuple(int(number) for number in re.findall(r"\d+", layer)), layer
