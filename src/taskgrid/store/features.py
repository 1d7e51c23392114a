"""Features of images, kept so that no pass through a tower is made twice.

A cache, not an artefact: nothing depends on its files, and whoever needs the space may delete them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from taskgrid.errors import ArtifactError
from taskgrid.store.weights import load_state, save_state

_NAME = "features"


class FeatureStore:
    """Feature matrices under one folder, found by key; safe for concurrent writers and readers.

    Args:
        root: folder of the store; made by the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def find(self, key: str) -> torch.Tensor | None:
        """Return the features ``(n, D)`` on the CPU; None where there are none that can be read."""
        try:
            state, _ = load_state(self._path(key))
        except ArtifactError:
            return None
        return state.get(_NAME)

    def add(self, key: str, features: torch.Tensor) -> None:
        """Keep features under a key; equal keys mean equal features, so the last writer may win.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        save_state(self._path(key), {_NAME: features}, {"kind": "features", "key": key})

    def _path(self, key: str) -> Path:
        return self._root / f"{key}.safetensors"
