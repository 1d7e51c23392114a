"""Food-101: ``images/<class>/<file>``, and lists of each class in ``meta/train.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from taskgrid.data.published.layouts.files import damaged, existing, find_folder, image_files
from taskgrid.data.published.layouts.parts import LayoutSettings, Parts
from taskgrid.store.images import Split


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    parts = {}
    for split in splits:
        names = _names(folder / "meta" / f"{split}.json")
        ids = [f"images/{name}.jpg" for name in names]
        parts[split] = image_files(folder, ids, [name.split("/")[0] for name in names])
    return parts


def _names(path: Path) -> list[str]:
    try:
        value = json.loads(existing(path).read_text(encoding="utf-8-sig"))
        return [str(name) for names in value.values() for name in names]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from error
