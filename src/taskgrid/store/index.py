"""A checkpoint in several files: the index that says which file holds which tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from taskgrid.errors import ArtifactError

_SHARD = re.compile(r"(?P<stem>.+)-\d{5,}-of-(?P<count>\d{5,})(?P<suffix>\.[^.]+)?")


@dataclass(frozen=True)
class ShardIndex:
    """An index of shards.

    Attributes:
        path: where it lies; the shards lie beside it.
        shards: tensor name -> file name.
        metadata: what else it says.
    """

    path: Path
    shards: Mapping[str, str]
    metadata: Mapping[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """The shards, sorted."""
        return tuple(self.path.with_name(name) for name in sorted(set(self.shards.values())))


def read_index(path: Path) -> ShardIndex:
    """Read an index of shards (``model.safetensors.index.json``).

    Raises:
        ArtifactError: if it is none, or names files outside its folder.
    """
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        shards = index["weight_map"]
        metadata = dict(index.get("metadata") or {})
        plain = all(isinstance(file, str) and _is_name(file) for file in shards.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"no index of shards: {error!r:.200}") from error
    if not plain:
        raise _damaged(path, "it names files outside its folder")
    return ShardIndex(path, dict(shards), metadata)


def index_path(path: Path) -> Path:
    """Return the path of the index of a state in shards."""
    return path.with_name(f"{path.name}.index.json")


def shard_of(path: PurePath) -> str | None:
    """Return the name of the state that a file is one of several shards of, by the file's name."""
    found = _SHARD.fullmatch(path.name)
    if found is None or int(found["count"]) == 1:
        return None
    return f"{found['stem']}{found['suffix'] or ''}"


def whole(path: Path) -> Path:
    """Return the index of the shards that a file is one of, or the file itself.

    Raises:
        ArtifactError: if it is one of several shards, and their index is missing.
    """
    name = shard_of(path)
    if name is None:
        return path
    index = index_path(path.with_name(name))
    if not index.is_file():
        raise ArtifactError(
            f"{path} is one of several shards, but their index {index.name} is missing; "
            "fetch or build the whole checkpoint again"
        )
    return index


def _is_name(text: str) -> bool:
    return text not in ("", "..") and "\0" not in text and Path(text).name == text


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({reason}); fetch or build it again")
