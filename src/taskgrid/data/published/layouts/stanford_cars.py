"""Stanford Cars: images, and annotations in MATLAB files with the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taskgrid.data.published.layouts.files import (
    damaged,
    find_folder,
    image_files,
    load_mat,
    missing,
)
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Split

_FILES: dict[Split, tuple[str, ...]] = {
    "train": ("devkit/cars_train_annos.mat",),
    # The first is where the owners put it beside the kit, the second where some copies have it.
    "test": ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat"),
}


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    names = load_mat(folder / "devkit" / "cars_meta.mat", ["class_names"])["class_names"]
    classes = [str(name) for name in np.atleast_1d(names)]
    return {split: _read(folder, split, classes) for split in splits}


def _read(folder: Path, split: Split, classes: Sequence[str]) -> Part:
    places = [folder / name for name in _FILES[split]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise missing(places[0])
    annotations = np.atleast_1d(load_mat(path, ["annotations"])["annotations"])
    try:
        labels = [int(row["class"]) - 1 for row in annotations]
        if min(labels, default=0) < 0:
            raise ValueError("a class is numbered 0")
        rows = [(str(row["fname"]), classes[n]) for row, n in zip(annotations, labels, strict=True)]
    except (ValueError, IndexError, TypeError) as error:
        raise damaged(path, f"it has no labels or other ones: {error}") from error
    return image_files(folder, [f"cars_{split}/{name}" for name, _ in rows], [c for _, c in rows])
