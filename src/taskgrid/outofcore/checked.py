"""Checkpoints compared with the digest in their lineage, whole in memory or piece by piece."""

from __future__ import annotations

import hashlib
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.outofcore.shards import TensorReader, WeightFiles
from taskgrid.store.seals import damaged
from taskgrid.store.weights import Lineage, State, digest_prefix, digest_state

_PIECE = 1 << 20


def load_weights(path: str | Path) -> tuple[State, Lineage]:
    """Read a state and its lineage, one file or shards, and check the bytes against the digest.

    Raises:
        ArtifactError: if a file is missing, damaged or altered, or carries no lineage.
    """
    checkpoint = WeightFiles.open(path)
    if not checkpoint.lineage:
        raise ArtifactError(f"{checkpoint.path} carries no lineage; it was not written by taskgrid")
    with TensorReader(checkpoint) as reader:
        state = {name: reader.read(name) for name in checkpoint.specs}
    _compare(checkpoint, digest_state(state))
    return state, checkpoint.lineage


def check_weights(path: str | Path) -> None:
    """Compare a checkpoint's bytes with its digest, piece by piece: for who reads it in windows.

    Raises:
        ArtifactError: if a file is missing, damaged or altered.
    """
    checkpoint = WeightFiles.open(path)
    total, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with TensorReader(checkpoint) as reader:
        for name, spec in sorted(checkpoint.specs.items()):
            total.update(digest_prefix(name, spec.torch_dtype, spec.shape))
            for start in range(0, spec.nbytes, _PIECE):
                piece = buffer[: spec.nbytes - start]
                reader.read_into(piece, name, start)
                total.update(piece)
    if checkpoint.lineage:
        _compare(checkpoint, total.hexdigest()[:32])


def _compare(checkpoint: WeightFiles, content: str) -> None:
    wanted = checkpoint.lineage["digest"]
    if content != wanted:
        raise damaged(checkpoint.path, f"its tensors have digest {content}, it says {wanted}")
