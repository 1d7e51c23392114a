"""GTSRB: training images in folders of classes, test images with a table of their classes.

Read in both forms: ``GTSRB/Training`` of ``GTSRB-Training_fixed.zip`` (26,640 images: torchvision
and the papers) and ``GTSRB/Final_Training/Images`` of the final training set (39,209 images, which
is another data set to a paper; say so in `counts`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from taskgrid.data.published.layouts.files import (
    damaged,
    find_folder,
    image_files,
    missing,
    names_in,
)
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.store.images import Split

_TRAIN = ("GTSRB/Training", "GTSRB/Final_Training/Images", "Training", "Final_Training/Images")
_TEST = ("GTSRB/Final_Test/Images", "Final_Test/Images")
_TABLE = "GT-final_test.csv"
_SUFFIX = ".ppm"


class Settings(LayoutSettings):
    """Settings of the reader."""


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    folder = find_folder(root, settings.folder)
    readers = {"train": _train, "test": _test}
    return {split: readers[split](folder) for split in splits}


def _train(folder: Path) -> Part:
    place = _first(folder, _TRAIN)
    classes = [name for name in names_in(folder / place) if name.isdigit()]
    ids = [
        f"{place}/{name}/{file}"
        for name in classes
        for file in names_in(folder / place / name)
        if file.endswith(_SUFFIX)
    ]
    return image_files(folder, ids, [name.split("/")[-2] for name in ids])


def _test(folder: Path) -> Part:
    place = _first(folder, _TEST)
    beside = (folder, folder / place, (folder / place).parent, folder / "GTSRB")
    table = next((p / _TABLE for p in beside if (p / _TABLE).is_file()), None)
    if table is None:
        raise missing(folder / _TABLE)
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter=";", skipinitialspace=True))
        labels = [f"{int(row['ClassId']):05d}" for row in rows]
        return image_files(folder, [f"{place}/{row['Filename']}" for row in rows], labels)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise damaged(table, f"it has no columns Filename and ClassId: {error}") from error


def _first(folder: Path, places: Sequence[str]) -> str:
    found = next((place for place in places if (folder / place).is_dir()), None)
    if found is None:
        raise missing(folder / places[0])
    return found
