"""Weights as safetensors, with lineage and a content digest in the header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from taskgrid.errors import ArtifactError
from taskgrid.provenance.digests import canonical_json, digest
from taskgrid.store import seals
from taskgrid.store.atomic import atomic_path
from taskgrid.store.makers import mend

State: TypeAlias = dict[str, torch.Tensor]
"""Named tensors; the keys are those of open_clip's visual tower without ``visual.``."""

Lineage: TypeAlias = dict[str, str]
"""What an artefact was made from: digests and names, all text."""

HEADER = "taskgrid"
"""Name of the entry in a file's header that holds the lineage, as JSON."""


def digest_state(state: Mapping[str, torch.Tensor]) -> str:
    """Return the digest of names, dtypes, shapes and bytes of a state, whatever its order."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(digest_prefix(name, tensor.dtype, tensor.shape))
        total.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:32]


def digest_prefix(name: str, dtype: torch.dtype, shape: Sequence[int]) -> bytes:
    """Return what enters a state's digest before the bytes of a tensor."""
    return canonical_json([name, str(dtype), list(shape)]).encode()


def save_state(
    path: str | Path, state: Mapping[str, torch.Tensor], lineage: Mapping[str, str]
) -> str:
    """Write a state atomically; its digest and lineage go into the header.

    Returns:
        The digest of the state.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    content = digest_state(tensors)
    # One entry: safetensors keeps several in an order of its own that differs from call to call.
    header = {HEADER: lineage_text(lineage, content)}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:
            raise ArtifactError(f"cannot write {path}: {error}") from error
    return content


def lineage_text(lineage: Mapping[str, str], content: str) -> str:
    """Return what stands in a header: a lineage with the digest of the tensors and one of its own."""
    entries = {**lineage, "digest": content}
    return canonical_json({**entries, seals.NAME: digest(entries)})


def read_lineage(path: str | Path) -> Lineage:
    """Read the lineage in a file's header, without its tensors.

    Raises:
        ArtifactError: if the file is missing, damaged, or carries no lineage.
    """
    try:
        with safe_open(str(path), framework="pt") as stream:
            header = stream.metadata() or {}
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing") from error
    except (SafetensorError, OSError) as error:
        raise seals.damaged(path, str(error)) from error
    if HEADER not in header:
        advice = mend(path, "taskgrid did not write it")
        raise ArtifactError(f"{path} carries no lineage in its header; {advice}")
    return parse_lineage(path, header[HEADER])


def parse_lineage(path: str | Path, text: object) -> Lineage:
    """Read a lineage as it stands in a header or an index, and check it against its own digest.

    Args:
        path: where it stands.
        text: JSON.

    Raises:
        ArtifactError: if it is no mapping of names to texts, has no digest, or was changed.
    """
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(entry, str) for entry in found.values()):
        raise seals.damaged(path, "its lineage cannot be read")
    if "digest" not in found:
        raise seals.damaged(path, "its lineage has no digest")
    stated = found.pop(seals.NAME, None)
    if digest(found) != stated:
        raise seals.damaged(path, f"its lineage has digest {digest(found)}, it says {stated}")
    return found


def load_state(path: str | Path) -> tuple[State, Lineage]:
    """Read a state and its lineage, and check the bytes against the digest in the header.

    Raises:
        ArtifactError: if the file is missing, truncated, altered, or carries no lineage.
    """
    lineage = read_lineage(path)
    try:
        with safe_open(str(path), framework="pt") as stream:
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    # A shape that no tensor can have is found by torch alone.
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise seals.damaged(path, str(error)) from error
    content = digest_state(state)
    if content != lineage["digest"]:
        raise seals.damaged(
            path, f"its tensors have digest {content}, its header says {lineage['digest']}"
        )
    return state, lineage
