"""PatchCamelyon: HDF5 files of images (``x``) and labels (``y``); needs the package h5py."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taskgrid.data.published.layouts.files import damaged, existing, find_folder, numbered
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.errors import DataError
from taskgrid.store.images import Pixels, Split

_PREFIX = "camelyonpatch_level_2_split_"


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    return {split: _read(folder, split) for split in splits}


def _read(folder: Path, split: Split) -> Part:
    images, labels = (_open(folder / f"{_PREFIX}{split}_{name}.h5", name) for name in "xy")
    if len(images) != len(labels):
        raise DataError(f"{images.file.filename} has {len(images)} images for {len(labels)} labels")
    path = Path(images.file.filename)

    def load(row: int) -> Pixels:
        try:
            return np.asarray(images[row])
        except OSError as error:
            raise damaged(path, error) from error

    return numbered(split, np.asarray(labels).reshape(-1).astype(np.int64).tolist(), load)


def _open(path: Path, name: str) -> Any:
    try:
        # By name: it is no dependency, and most never need it.
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise DataError(
            "the original files of PCAM are HDF5, which needs the package h5py: `pip install h5py`, "
            "or use `layout: hub`"
        ) from error
    try:
        # Left open: images are read one by one, until nothing refers to the file any more.
        return h5py.File(existing(path), "r")[name]
    except (OSError, KeyError) as error:
        raise damaged(path, error) from error
