"""Digests of data and of code: the answer to "what does this number depend on?"."""

from taskgrid.provenance.code import code_closure, code_digest
from taskgrid.provenance.digests import (
    canonical_json,
    derive_seed,
    digest,
    digest_bytes,
    digest_file,
)

__all__ = [
    "canonical_json",
    "code_closure",
    "code_digest",
    "derive_seed",
    "digest",
    "digest_bytes",
    "digest_file",
]
