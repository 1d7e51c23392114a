"""Tiny random CLIPs, from a model config as shipped ones have, for tests of everything above them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from taskgrid.finetuning.loop import Samples
from taskgrid.models.clip import Clip, load_clip
from taskgrid.models.heads import Head, build_head

SIZE = 8
CLASSES = ("cat", "dog", "house")
TEMPLATES = ("a photo of a {}.", "a drawing of the {}.")


def tiny_config(*, quick_gelu: bool = False, layers: int = 2) -> dict[str, Any]:
    """A model config whose tower has 5 tokens and two heads of width 8."""
    return {
        "embed_dim": 12,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": 4,
            "width": 16,
            "layers": layers,
            "head_width": 8,
        },
        "text_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 8,
            "heads": 1,
            "layers": 1,
        },
    }


def write_tiny(
    folder: Path, *, tag: str = "s0", seed: int = 0, dtype: torch.dtype = torch.float32, **kind: Any
) -> dict[str, torch.Tensor]:
    """Write ``tiny.json`` and ``tiny-<tag>.safetensors``; return the checkpoint."""
    config = tiny_config(**kind)
    (folder / "tiny.json").write_text(
        json.dumps(
            config | {"preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
        )
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(**config)
        # LayerNorms start at exactly one and zero, and an untrained text tower hardly looks at the
        # class name; a trained CLIP is like neither.
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                size = 0.05 if name.startswith("visual.") else 0.5
                parameter.data.add_(size * torch.randn_like(parameter))
    state = {key: tensor.detach().to(dtype).clone() for key, tensor in model.state_dict().items()}
    save_file(state, str(folder / f"tiny-{tag}.safetensors"))
    return state


def tiny_clip(folder: Path, **options: Any) -> Clip:
    """Write and load a tiny CLIP."""
    write_tiny(folder, **options)
    return load_clip("tiny", options.get("tag", "s0"), resources=folder)


def tiny_head(clip: Clip) -> Head:
    """A head of three classes."""
    return build_head(clip, CLASSES, TEMPLATES, lineage={"task": "pets"})


def tiny_samples(count: int, seed: int = 0) -> Samples:
    """Images of three classes that differ by colour, with noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(CLASSES), count)
    pixels = random.integers(0, 120, (count, SIZE, SIZE, 3))
    pixels[np.arange(count), :, :, labels] += 100
    return Samples(pixels.astype(np.uint8), labels)
