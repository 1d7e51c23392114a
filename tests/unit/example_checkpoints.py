"""Checkpoints as people have them: in shards, below prefixes, and files that are none."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 350000000\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in - a hub</title></head><body></body></html>"


def archive_of_arrays() -> bytes:
    """An npz file."""
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    return stream.getvalue()


STAND_INS: Mapping[str, tuple[bytes, str]] = {
    "lfs": (LFS, "a pointer of Git LFS.*git lfs pull"),
    "annex": (b"/annex/objects/MD5E-s3--0\n", "a pointer of git-annex.*git annex get"),
    "page": (PAGE, r"a web page saved as a file \('Sign in - a hub'\).*download"),
    "marked page": (b"\xef\xbb\xbf<html lang='en'>", "a web page saved as a file"),
    "denied": (b"<?xml version='1.0'?><Error><Message>Denied</Message>", r"a web page .*'Denied'"),
    "message": (b"Entry not found", r"a text \(it begins 'Entry not found'\)"),
    "json": (b'{"error":"Repository not found"}', r"a text \(it begins '\{\"error"),
    "foreign text": ("Zugriff für Gäste verweigert".encode(), "a text"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), "a gzip archive.*unpack"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(40), "a zstandard archive.*unpack"),
    "tar": (b"a.pt" + bytes(253) + b"ustar\0" + bytes(300), "a tar archive.*unpack"),
    "npy": (b"\x93NUMPY\x01\0" + bytes(40), "a NumPy array"),
    "npz": (archive_of_arrays(), "an archive of NumPy arrays"),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file"),
    "gguf": (b"GGUF" + bytes(90), "a GGUF file"),
}
"""What lies in the place of weights, and what is said of it."""


def under(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state with a prefix before its names."""
    return {prefix + key: tensor for key, tensor in state.items()}


def in_shards(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    name: str = "model.safetensors",
    count: int = 3,
) -> Path:
    """Write a state in shards as transformers does; return the index."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, _, ending = name.rpartition(".")
    shards = {}
    for number in range(count):
        file = f"{stem}-{number + 1:05d}-of-{count:05d}.{ending}"
        part = {key: state[key].clone().contiguous() for key in sorted(state)[number::count]}
        if ending == "safetensors":
            save_file(part, str(folder / file))
        else:
            torch.save(part, folder / file)
        shards |= dict.fromkeys(part, file)
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": shards}))
    return index
