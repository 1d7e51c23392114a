"""The built-in model as a file: architecture from JSON, weights from and to safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from taskgrid.store.atomic import atomic_path


@dataclass(frozen=True)
class Architecture:
    """An open_clip model config plus what open_clip keeps apart: how images are prepared.

    ``model`` holds ``embed_dim``, ``vision_cfg``, ``text_cfg`` (and ``quick_gelu``); ``preprocess``
    has open_clip's keys ``size``, ``mode``, ``mean``, ``std``, ``interpolation``, ``resize_mode``.
    """

    name: str
    model: Mapping[str, Any]
    preprocess: Mapping[str, Any]

    @property
    def side(self) -> int:
        """Side of the input images in pixels."""
        return int(self.model["vision_cfg"]["image_size"])

    @property
    def context_length(self) -> int:
        """Number of tokens of a text."""
        return int(self.model["text_cfg"]["context_length"])


def read_architecture(path: Path) -> Architecture:
    """Read a model config such as ``resources/models/taskgrid-vit-4.json``."""
    values = json.loads(path.read_text(encoding="utf-8"))
    preprocess = values.pop("preprocess_cfg")
    return Architecture(path.stem, values, preprocess)


def new_model(architecture: Architecture, seed: int) -> CLIP:
    """A freshly initialised model; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(**architecture.model)


def tokenizer(architecture: Architecture) -> open_clip.SimpleTokenizer:
    """open_clip's own tokenizer with the architecture's context length."""
    return open_clip.SimpleTokenizer(context_length=architecture.context_length)


def save_weights(model: CLIP, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the weights in half precision, whole or not at all: the rounded weights *are* the model."""
    # Cloned: state-dict tensors may share memory, which safetensors refuses.
    state = {
        k: v.detach().to(torch.float16).clone().contiguous() for k, v in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(state, str(temporary), metadata=dict(metadata))


def load_weights(architecture: Architecture, path: Path) -> CLIP:
    """The model with the weights of a file, in float32 and evaluation mode."""
    model = new_model(architecture, 0)
    model.load_state_dict({k: v.float() for k, v in load_file(str(path)).items()})
    return model.eval()


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a weights file says."""
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})
