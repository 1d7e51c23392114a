"""Digests of bytes, files and JSON values, and the seeds derived from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_HEX = 32
"""128 bits: no collisions at any number of artefacts, and short enough to read."""


def canonical_json(value: Any) -> str:
    """Print a JSON value in one way only: sorted keys, no spaces, no NaN.

    Raises:
        TypeError: if the value holds something JSON has no type for.
        ValueError: if it holds NaN or an infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the digest (32 hex characters of SHA-256) of bytes."""
    return hashlib.sha256(data).hexdigest()[:_HEX]


def digest(value: Any) -> str:
    """Return the digest of a JSON value, independent of the order of its keys."""
    return digest_bytes(canonical_json(value).encode())


def digest_file(path: str | Path) -> str:
    """Return the digest of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_HEX]


def derive_seed(*parts: str | int) -> int:
    """Return a 63-bit seed that depends on every part and on nothing else."""
    return int(hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:16], 16) >> 1
