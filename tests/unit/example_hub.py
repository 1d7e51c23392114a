"""Stand-ins for what lies on the Hugging Face hub: its cache on disk, made without the hub's client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put(
    cache: Path,
    repository: str,
    files: Mapping[str, bytes],
    *,
    commit: str = COMMIT,
    ref: str | None = "main",
) -> Path:
    """Put files of a model repository into a cache; return the snapshot's folder.

    Weights get the name that Git LFS gives them (SHA-256), other files git's own (SHA-1).
    """
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for name, content in files.items():
        if name.endswith((".json", ".md")):
            header = b"blob %d\0" % len(content)
            etag = hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
        else:
            etag = hashlib.sha256(content).hexdigest()
        blob = folder / "blobs" / etag
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
    if ref is not None:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def as_json(value: Any) -> bytes:
    """A JSON file's bytes."""
    return json.dumps(value).encode()


def as_safetensors(state: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors file's bytes, as the hub's libraries write them."""
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in state.items()}
    return save(tensors, metadata={"format": "pt"})
