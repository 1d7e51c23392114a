"""Logits of evaluated merges, kept so that no pass is made twice and read from their files.

A cache, not an artefact: nothing depends on its files, and whoever needs the space may delete them
when no job reads them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taskgrid.errors import ArtifactError
from taskgrid.store import seals
from taskgrid.store.atomic import sealed_path

Logits = NDArray[np.float32]


class LogitsStore:
    """Matrices of logits under one folder, found by key; safe for concurrent writers and readers.

    Args:
        root: folder of the store; made by the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def find(self, key: str) -> Logits | None:
        """Return the logits ``(n, C)`` as a mapped file; None where there are none that can be read."""
        try:
            seals.check(self._path(key))
            found = np.load(self._path(key), mmap_mode="r")
        except (ArtifactError, OSError, ValueError, EOFError):
            return None
        return found if found.ndim == 2 and found.dtype == np.float32 else None

    def add(self, key: str, logits: Logits) -> None:
        """Keep logits under a key; equal keys mean equal logits, so the last writer may win.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        with sealed_path(self._path(key)) as temporary, temporary.open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(logits))
            np.lib.format.write_array_header_1_0(file, header)
            # By hand, because NumPy swallows what the system says when it refuses.
            file.write(np.ascontiguousarray(logits).data)
            # NumPy reads as many bytes as the header names, and no further.
            file.write(seals.EMPTY.encode())

    def _path(self, key: str) -> Path:
        return self._root / f"{key}.npy"
