"""Image folders: ``<path>/train/<class>/*``, maybe ``test``, ``val``; or just ``<path>/<class>/*``.

Folders of splits are known by their usual names in any case; what may be meant in two ways is refused,
and what is left out is said (`Source.notes`). Classes are the sorted names of the class folders, and
the images of a class are taken in torchvision's ``ImageFolder`` order, so that the papers' permutation
cuts the same validation split. An image's id is its path below ``<path>``. Hidden files are ignored,
links followed; a class folder may have folders of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from taskgrid.data.classnames import plain, resolve_classes, resolve_templates
from taskgrid.data.decode import IMAGE_SUFFIXES, decode_image
from taskgrid.data.sources.checks import ACCEPT_MISSING, required_path
from taskgrid.data.sources.listings import dangling, endings, shown, visible, visible_folders
from taskgrid.data.sources.options import SourceOptions, parse_options
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.data.sources.split_folders import left_beside, named_folders, usual_folders
from taskgrid.data.sources.split_names import meaning
from taskgrid.errors import DataError
from taskgrid.provenance.walking import files_below
from taskgrid.store.images import SPLITS, Split

_HELD_OUT = ("val", "test", "unclear")


class FolderOptions(SourceOptions):
    """Options of the source ``folder``."""

    folders: dict[Split, str] | None = None
    """Which folder below `path` is which split, where their names do not say it (some data sets call their
    test images `val`); `.` is `path` itself. All others are left out."""


class FolderSource(Source):
    """Images in class folders."""

    def __init__(self, task: TaskData, root: Path, folders: Mapping[Split, Path]) -> None:
        """Scan the folders of a task's splits below ``root``.

        Raises:
            DataError: if a class folder is empty, or the splits have different classes.
        """
        self._root = root
        self._folders = folders
        places = {split: _class_folders(folder) for split, folder in folders.items()}
        names = sorted(places["train"])
        self.classes = resolve_classes(
            task, own=names, beside=root / "classes.json", alphabetical=True
        )
        self.templates = resolve_templates(task)
        self._files: dict[Split, list[tuple[Path, int]]] = {}
        for split, folder in folders.items():
            lenient = split != "train" and task.allow_missing_classes
            _check_classes(folder, places[split], names, lenient=lenient)
            found, others = _scan(places[split], names, lenient=lenient)
            self._files[split] = found
            self.notes += _left_out(split, root, folder, others)

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that have a folder."""
        return tuple(split for split in SPLITS if split in self._folders)

    def count(self, split: Split) -> int:
        """Return the number of images in a split's folder."""
        return len(self._files[split])

    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the images of a split, class by class."""
        for path, label in self._files[split]:
            name = path.relative_to(self._root).as_posix()
            yield Entry(name, label, partial(decode_image, path, str(path)))


def open_task(task: TaskData) -> FolderSource:
    """Open a task's image folders.

    Raises:
        DataError: if the path is missing, a class folder is empty, the splits have different
            classes, or a folder may be meant in two ways.
        SplitError: if there is no folder of training images.
    """
    root = required_path(task)
    if not root.is_dir():
        raise DataError(f"{root} is a file, but the source 'folder' needs a folder")
    options = parse_options(task, FolderOptions)
    if options.folders is not None:
        return FolderSource(task, root, named_folders(root, options.folders))
    folders = usual_folders(root)
    source = FolderSource(task, root, folders)
    if root not in folders.values():
        source.notes += left_beside(root, folders)
    return source


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the class folders by name, however their accents are composed."""
    found: dict[str, Path] = {}
    for child in visible_folders(folder):
        name = plain(child.name)
        if name in found:
            raise DataError(
                f"{folder} has two folders called {name!r}, which differ in how accents are composed "
                "or in blanks alone; put their images into one"
            )
        found[name] = child
        inside = [part for part in visible_folders(child) if meaning(part.name) in _HELD_OUT]
        if inside:
            raise DataError(
                f"{child} holds a folder {inside[0].name}: splits stand above classes "
                f"({inside[0].name}/{name}/*), not below; move the folders, set `path` to {child} where "
                f"it is the data set, or rename {inside[0].name} where it is no split"
            )
    return found


def _check_classes(
    folder: Path, present: Mapping[str, Path], classes: Sequence[str], *, lenient: bool
) -> None:
    missing = [] if lenient else sorted(set(classes).difference(present))
    extra = sorted(set(present).difference(classes))
    if missing or extra:
        differences = [f"lacks {', '.join(missing)}"] if missing else []
        differences += [f"has {', '.join(extra)} beside them"] if extra else []
        raise DataError(
            f"{folder} must have the {len(classes)} class folders of the training images, but "
            f"{' and '.join(differences)}{f'; {ACCEPT_MISSING}' if missing else ''}"
        )


def _scan(
    present: Mapping[str, Path], classes: Sequence[str], *, lenient: bool
) -> tuple[list[tuple[Path, int]], list[Path]]:
    """Return the images with their labels, and all other files."""
    files: list[tuple[Path, int]] = []
    others: list[Path] = []
    for label, name in enumerate(classes):
        if name not in present:
            continue
        images, rest = _parted(present[name])
        if not images and not lenient:
            instead = f" but files that end in {endings(rest)}" if rest else ""
            raise DataError(
                f"the class folder {present[name]} has no images ({', '.join(IMAGE_SUFFIXES)})"
                f"{instead}; fill it or remove it"
            )
        files.extend((path, label) for path in images)
        others.extend(rest)
    return files, others


def _parted(folder: Path) -> tuple[list[Path], list[Path]]:
    images, others = [], []
    # The order of torchvision's ImageFolder.
    for path in sorted(files_below(folder), key=lambda path: (str(path.parent), path.name)):
        if path.is_symlink() and not path.exists():
            raise dangling(path)
        if path.is_dir():
            raise DataError(f"{path} is a link to a folder that holds it; remove it")
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            others.append(path)
            continue
        if not _is_text(path.name):
            raise DataError(f"the name of {str(path)!r} is not UTF-8; rename it")
        images.append(path)
    return images, others


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _left_out(split: Split, root: Path, folder: Path, others: Sequence[Path]) -> tuple[str, ...]:
    stray = [path for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    stray = [path for path in stray if not path.is_dir()]
    notes = []
    if stray:
        notes.append(
            f"{split}: left out {len(stray)} images that lie in no class folder, such as "
            f"{shown(stray[0], root)}"
        )
    if others:
        notes.append(
            f"{split}: left out {len(others)} files, which do not end like images: "
            f"{endings(others)}, such as {shown(others[0], root)}"
        )
    return tuple(notes)
