"""Where a vision transformer is looked at: what the parts of its layers give for each token of each image.

embedding   block       what enters the first block
block 3     q, k, v     queries, keys and values, all heads side by side
            attention   what attention gives
            mlp         what the perceptron gives
            block       the residual stream behind both
output      block       the features that go to the head, as if of one token
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.func import functional_call

from taskgrid.alignment.taps import listening
from taskgrid.errors import LineageError

_ATTENTION = ("q", "k", "v")
_STREAM = "res"


@dataclass(frozen=True)
class Place:
    """A part of a layer.

    Attributes:
        layer: as in tables: ``embedding``, ``block 3``, ``output``.
        depth: its place from pixels to features.
        part: ``q``, ``k``, ``v``, ``attention``, ``mlp`` or ``block``.
    """

    layer: str
    depth: int
    part: str = "block"


Hear: TypeAlias = Callable[[Place, torch.Tensor], None]
"""Is told a place, and what was seen there: ``(B, tokens, channels)``."""


def pass_through(
    tower: nn.Module, state: Mapping[str, torch.Tensor], inputs: torch.Tensor, hear: Hear
) -> None:
    """Pass images through a tower with other weights than its own, and tell what is seen at each place.

    Args:
        tower: open_clip's vision transformer, in evaluation mode.
        state: the weights.
        inputs: ``(B, 3, S, S)``, as the tower takes them.
        hear: is told.

    Raises:
        LineageError: if the tower is no such transformer.
    """
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
    if blocks is None:
        raise LineageError(
            "the study 'features' looks into the vision transformers of open_clip, and this tower is none; "
            "take the study out of `studies` for this model"
        )
    with torch.no_grad(), _hearing(tower, blocks, hear):
        features = functional_call(tower, dict(state), (inputs,))
    hear(Place("output", len(blocks) + 1), features[:, None])


@contextmanager
def _hearing(tower: nn.Module, blocks: Any, hear: Hear) -> Iterator[None]:
    embedding = partial(_output, hear, Place("embedding", 0))
    handles = [tower.get_submodule("ln_pre").register_forward_hook(embedding)]
    for at, block in enumerate(blocks):
        for part, module in (("attention", block.attn), ("mlp", block.mlp)):
            told = partial(_output, hear, _place(at, part))
            handles.append(module.register_forward_hook(told))
    try:
        with listening(tower, partial(_tap, hear)):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _place(block: int, part: str) -> Place:
    return Place(f"block {block}", block + 1, part)


def _output(hear: Hear, place: Place, _module: nn.Module, _inputs: Any, found: Any) -> None:
    # Attention returns its weights beside what it gives.
    hear(place, found[0] if isinstance(found, tuple) else found)


def _tap(hear: Hear, tap: str, seen: torch.Tensor) -> None:
    block, _, space = tap.partition(".")
    if space in (*_ATTENTION, _STREAM):
        hear(_place(int(block), "block" if space == _STREAM else space), seen)
