"""A folder that open_clip loads by ``local-dir:``: what lies beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from taskgrid.models.clip import Clip
from taskgrid.store.atomic import write_json

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
ABOUT = "taskgrid"
"""The key, of which open_clip knows nothing, that says what the weights are."""


def describe(clip: Clip, path: Path, about: Mapping[str, object]) -> None:
    """Write how a CLIP is built and how its images are prepared, which weights alone do not say.

    Args:
        clip: the model, or one of the same architecture and base.
        path: the file, ``open_clip_config.json``.
        about: what the weights are.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    preprocess = {"mean": clip.mean, "std": clip.std, "interpolation": clip.interpolation}
    write_json(
        path,
        {
            "model_cfg": dict(clip.config),
            "preprocess_cfg": {**preprocess, "resize_mode": "shortest"},
            ABOUT: dict(about),
        },
    )
