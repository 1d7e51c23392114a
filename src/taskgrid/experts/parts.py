"""What a checkpoint holds beside an image tower: known parts are left out, others refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import torch

from taskgrid.errors import LineageError
from taskgrid.store.weights import State

_TEXT_TOWER: Final = re.compile(
    r"(?:transformer|token_embedding|positional_embedding|ln_final|text_projection|text|attn_mask"
    r"|logit_scale|logit_bias)(?:\.|$)"
)
_HEAD: Final = re.compile(r"(?:^|\.)classification_heads?\.")
# Optimisers, schedules, counters, random states: whatever trainers keep, by the first part of its name.
_TRAINING: Final = re.compile(
    r"[^.]*(?:optim|sched|scaler|rng|random|callback|loops|hparam|hyper_param|metric|loss|history|args"
    r"|config|epoch|step)[^.]*(?:\.|$)",
    re.IGNORECASE,
)
_CONTAINER: Final = re.compile(r"(?:model_)?state_dict\.|model_state\.")


def places(state: Mapping[str, torch.Tensor], landmark: str) -> list[str]:
    """Return the prefixes below which a tensor of a tower lies, sorted."""
    return [
        key.removesuffix(landmark)
        for key in sorted(state)
        if key == landmark or key.endswith(f".{landmark}")
    ]


def the_only(found: list[str], what: str) -> str:
    """Return the one place of a tower.

    Raises:
        LineageError: if there are several.
    """
    if len(found) > 1:
        raise LineageError(
            f"{what} has several image towers ({', '.join(map(repr, found))}); save the one that is "
            "meant to a file of its own"
        )
    return found[0]


def left_out(state: State, root: str, what: str) -> list[str]:
    """Return notes on tensors outside of an image tower.

    Args:
        state: the tensors that are not the tower's.
        root: the prefix of the model that the tower is part of.
        what: what the messages call the expert.

    Raises:
        LineageError: names a tensor that may belong to the model and is not known.
    """
    container = _CONTAINER.match(root)
    counts = {
        "the text tower": 0,
        "a classification head": 0,
        "a training's state": 0,
        "single numbers": 0,
    }
    for key, tensor in state.items():
        if key.startswith(root) and _TEXT_TOWER.match(key.removeprefix(root)):
            counts["the text tower"] += 1
        elif _HEAD.search(key):
            counts["a classification head"] += 1
        elif _TRAINING.match(key) or (container and not key.startswith(container[0])):
            counts["a training's state"] += 1
        elif tensor.dim() == 0:
            counts["single numbers"] += 1
        else:
            raise LineageError(
                f"{what} holds {key!r:.200}, which belongs neither to an image tower nor to a text tower; "
                "save the image tower alone, and give that file"
            )
    return [f"{count} tensors of {part} were left out" for part, count in counts.items() if count]
