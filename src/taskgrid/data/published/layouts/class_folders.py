"""Folders of classes: EuroSAT, Rendered SST2, ImageNet.

Either a folder for each split, or one folder and a shipped list that says which image is in which
split (`resources/splits`): then every image must be listed, and every listed image be there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from taskgrid.data.decode import IMAGE_SUFFIXES
from taskgrid.data.published.layouts.files import (
    existing,
    find_folder,
    image_files,
    names_in,
    sorted_by_class,
)
from taskgrid.data.published.layouts.parts import LayoutSettings, Part, Parts
from taskgrid.errors import ArtifactError, DataError
from taskgrid.plugins.resources import resource_path
from taskgrid.store.images import Split


class Settings(LayoutSettings):
    """Settings of the reader.

    Attributes:
        folders: folder of each split; it holds folders of classes.
        split: name of the shipped list of splits, for images that lie in `folder` together.
        partial: whether images may be missing, or be there that are not listed.
    """

    folders: dict[Split, str] | None = None
    split: str | None = None
    partial: bool = False


def read(root: Path, settings: Settings, splits: Sequence[Split]) -> Parts:
    """List the images; see `parts.Reader`."""
    if settings.folders is not None:
        return {split: _folder(root, settings.folders[split]) for split in splits}
    folder = existing(find_folder(root, settings.folder))
    names = _listing(folder)
    if settings.split is None:
        raise DataError(f"{folder} holds class folders alone; the option `split` must name a list")
    listed = read_split_list(settings.split)
    if not settings.partial:
        _compare(folder, names, listed, settings.split)
    here = set(names)
    return {
        split: _part(folder, sorted_by_class(here.intersection(listed[split]))) for split in splits
    }


def read_split_list(name: str) -> dict[Split, tuple[str, ...]]:
    """Return the images of each split of a shipped list, as ``<class>/<file>``.

    The list holds the numbers of images of each class (``<class>/<class>_1.jpg`` and so on), and
    those of validation and test; all others train.

    Raises:
        ArtifactError: if there is no such list, or it is not whole.
    """
    path = resource_path(f"splits/{name}.json")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        val, test = tuple(value["val"]), tuple(value["test"])
        every = [
            f"{kind}/{kind}_{number}.jpg"
            for kind, count in value["images"].items()
            for number in range(1, count + 1)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no list of splits ({error}); restore it") from error
    held = set(val) | set(test)
    if len(held) != len(val) + len(test) or not held <= set(every):
        raise ArtifactError(f"{path} lists an image twice, or one that does not exist; restore it")
    return {"train": tuple(n for n in every if n not in held), "val": val, "test": test}


def _folder(root: Path, name: str) -> Part:
    folder = existing(find_folder(root, name, itself=False))
    return _part(folder.parent, [f"{folder.name}/{image}" for image in _listing(folder)])


def _part(folder: Path, names: Sequence[str]) -> Part:
    return image_files(folder, names, [name.rsplit("/", 2)[-2] for name in names])


def _listing(folder: Path) -> list[str]:
    """Return the images in class folders, ``<class>/<file>``, in the order of ``ImageFolder``."""
    return [
        f"{name}/{file}"
        for name in names_in(folder)
        if (folder / name).is_dir()
        for file in names_in(folder / name)
        if file.lower().endswith(IMAGE_SUFFIXES)
    ]


def _compare(
    folder: Path, names: Sequence[str], listed: Mapping[Split, Sequence[str]], split: str
) -> None:
    expected = {name for part in listed.values() for name in part}
    absent = sorted(expected.difference(names))
    unknown = sorted(set(names) - expected)
    if absent or unknown:
        problems = [f"{len(absent)} listed images are missing ({absent[0]})"] if absent else []
        problems += [f"{len(unknown)} images are not in the list ({unknown[0]})"] if unknown else []
        raise DataError(
            f"{folder} is not what the list of splits {split!r} is of: {' and '.join(problems)}; "
            "put the whole data set there, or set `counts: false` to take what is both there and "
            "listed"
        )
