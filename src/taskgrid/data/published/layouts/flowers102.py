"""Oxford Flowers 102: images in one folder, labels and splits in MATLAB files; labels begin at 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taskgrid.data.published.layouts.files import damaged, find_folder, image_files, load_mat
from taskgrid.data.published.layouts.parts import LayoutSettings, Parts
from taskgrid.store.images import Split

_LISTS: dict[Split, str] = {"train": "trnid", "val": "valid", "test": "tstid"}


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    path = folder / "setid.mat"
    lists = load_mat(path, [_LISTS[split] for split in splits])
    labels = np.atleast_1d(load_mat(folder / "imagelabels.mat", ["labels"])["labels"])
    parts = {}
    for split in splits:
        numbers = np.atleast_1d(lists[_LISTS[split]]).astype(np.int64).tolist()
        if not all(0 < number <= len(labels) for number in numbers):
            raise damaged(path, f"it numbers images that imagelabels.mat has no label of ({split})")
        ids = [f"jpg/image_{number:05d}.jpg" for number in numbers]
        parts[split] = image_files(folder, ids, [int(labels[n - 1]) - 1 for n in numbers])
    return parts
