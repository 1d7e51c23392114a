"""Parquet and Arrow files in Hugging Face's layout: encoded images beside labels.

``path`` is a folder of shards (``data/train-00000-of-00002.parquet``, ``test-*``, ``validation-*``,
or what ``save_to_disk`` writes: ``train/data-*.arrow``) or one file of training images. The image
column is a struct ``{bytes, path}`` or plain bytes; the label column holds class indices, truth values
or class names. Class names come from the ``ClassLabel`` in the schema's ``huggingface`` metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from taskgrid.data.classnames import resolve_classes, resolve_templates
from taskgrid.data.decode import decode_image
from taskgrid.data.sources.checks import (
    check_labels,
    check_unique,
    no_train_split,
    numbered_id,
    required_path,
)
from taskgrid.data.sources.options import SourceOptions, parse_options
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.data.sources.shards import Shard, features_of
from taskgrid.errors import DataError, SplitError
from taskgrid.store.images import SPLITS, Split

_ROWS = 64
_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("validation", "val", "valid"),
    "test": ("test",),
}
_PLACES = ("data/{name}-*{suffix}", "{name}-*{suffix}", "{name}{suffix}", "{name}/*{suffix}")
_SUFFIXES = (".parquet", ".arrow")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels")


class ParquetOptions(SourceOptions):
    """Options of the source ``parquet``.

    Attributes:
        image_column: the column of encoded images; found by itself where there is just one.
        label_column: the column of labels; found by itself where there is just one.
        id_column: a column of unique names; without it images are numbered.
        files: a glob below ``path`` for each split, where the files are not called as Hugging Face
            calls them.
    """

    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    files: dict[Split, str] | None = None


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    id: str | None
    class_label: tuple[str, ...] | None


class ParquetSource(Source):
    """Images in Parquet or Arrow files."""

    def __init__(self, task: TaskData, root: Path, files: Mapping[Split, Sequence[Path]]) -> None:
        """Read the labels (and ids) of all shards, and check the schema of each.

        Raises:
            DataError: if a shard is damaged, or lacks the image or label column.
        """
        self._root = root
        options = parse_options(task, ParquetOptions)
        self._shards = {split: [Shard(path) for path in files[split]] for split in files}
        self._columns = _find_columns(self._shards["train"][0], options)
        for shards in self._shards.values():
            for shard in shards:
                _check_schema(shard, self._columns)
        raw = {split: self._read(self._columns.label, split) for split in files}
        own, self._labels = _encode(raw, self._columns, self._shards["train"][0].path)
        implied = 1 + max((max(labels) for labels in self._labels.values() if labels), default=-1)
        self.classes = resolve_classes(
            task, own=own, labels=implied, beside=_folder(root) / "classes.json"
        )
        self.templates = resolve_templates(task)
        for split, labels in self._labels.items():
            if not labels:
                raise DataError(f"{_listed(files[split])} hold no images")
            check_labels(split, labels, len(self.classes))
        self._ids = {split: self._names(split) for split in files}

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that have files."""
        return tuple(split for split in SPLITS if split in self._shards)

    def count(self, split: Split) -> int:
        """Return the number of rows of a split."""
        return len(self._labels[split])

    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the images of a split, shard by shard."""
        images = (
            (shard, image)
            for shard in self._shards[split]
            for (image,) in shard.rows([self._columns.image])
        )
        pairs = zip(self._ids[split], self._labels[split], images, strict=True)
        for name, label, (shard, image) in pairs:
            yield self._entry(shard, name, label, image)

    def chosen(self, split: Split, rows: Sequence[int]) -> Iterator[Entry]:
        """Yield some images of a split; row groups that hold none of them are not read."""
        start = 0
        for shard in self._shards[split]:
            stop = start + shard.count
            here = frozenset(row - start for row in rows if start <= row < stop)
            for number, image in shard.some(self._columns.image, here) if here else ():
                row = start + number
                yield self._entry(shard, self._ids[split][row], self._labels[split][row], image)
            start = stop

    def _entry(self, shard: Shard, name: str, label: int, image: Any) -> Entry:
        data = self._encoded(shard, name, image)
        return Entry(name, label, partial(decode_image, data, f"{name!r} in {shard.path}"))

    def _encoded(self, shard: Shard, name: str, image: Any) -> bytes | Path:
        if isinstance(image, bytes):
            return image
        if isinstance(image, dict) and image.get("bytes") is not None:
            embedded: bytes = image["bytes"]
            return embedded
        if isinstance(image, dict) and image.get("path"):
            path: Path = _folder(self._root) / image["path"]
            if path.is_file():
                return path
            raise DataError(
                f"image {name!r} in {shard.path} has no bytes, and its file "
                f"{path} does not exist; embed the images"
            )
        raise DataError(f"image {name!r} in {shard.path} is empty; take the row out")

    def _names(self, split: Split) -> list[str]:
        if self._columns.id is None:
            return [numbered_id(split, row) for row in range(self.count(split))]
        names = [str(value) for value in self._read(self._columns.id, split)]
        check_unique(split, names)
        return names

    def _read(self, column: str, split: Split) -> list[Any]:
        return [value for shard in self._shards[split] for (value,) in shard.rows([column])]


def open_task(task: TaskData) -> ParquetSource:
    """Open a task's Parquet or Arrow files.

    Raises:
        DataError: if a file is missing or damaged, or lacks the image or label column.
        SplitError: if there are no training images.
    """
    root = required_path(task)
    options = parse_options(task, ParquetOptions)
    if root.is_file():
        if options.files is not None:
            raise DataError(f"options.files needs a folder as path, {root} is a file")
        return ParquetSource(task, root, {"train": [root]})
    files = _matching(root, options.files) if options.files is not None else _by_convention(root)
    if "train" not in files:
        raise SplitError(
            no_train_split(
                root,
                "it has no data/train-*.parquet, train-*.parquet, train/*.arrow or the like",
                "name the files in options.files, for example {train: 'mine/*.parquet'}",
            )
        )
    for paths in files.values():
        _check_shards(paths)
    return ParquetSource(task, root, files)


def _by_convention(root: Path) -> dict[Split, list[Path]]:
    found: dict[Split, list[Path]] = {}
    for split in SPLITS:
        globs = (
            place.format(name=name, suffix=suffix)
            for suffix in _SUFFIXES
            for name in _NAMES[split]
            for place in _PLACES
        )
        matches = (sorted(root.glob(pattern)) for pattern in globs)
        paths = next((paths for paths in matches if paths), None)
        if paths is not None:
            found[split] = paths
    return found


def _matching(root: Path, globs: Mapping[Split, str]) -> dict[Split, list[Path]]:
    found = {split: sorted(root.glob(globs[split])) for split in SPLITS if split in globs}
    for split, paths in found.items():
        if not paths:
            raise DataError(f"options.files.{split} {globs[split]!r} matches no file in {root}")
    return found


def _check_shards(paths: Sequence[Path]) -> None:
    numbers: dict[str, set[int]] = {}
    for path in paths:
        shard = _SHARD.search(path.name)
        if shard:
            total = int(shard[2])
            missing = numbers.setdefault(
                f"{path.name[: shard.start()]}-{{:05d}}-of-{shard[2]}{path.suffix}",
                set(range(total)),
            )
            missing.discard(int(shard[1]))
    for pattern, missing in numbers.items():
        if missing:
            raise DataError(
                f"{paths[0].parent / pattern.format(min(missing))} is missing; download all shards"
            )


def _find_columns(shard: Shard, options: ParquetOptions) -> _Columns:
    features = features_of(shard.schema)
    image = options.image_column or _guess(
        shard,
        "image",
        [n for n in features if features[n].get("_type") == "Image"],
        _IMAGE_NAMES,
    )
    label = options.label_column or _guess(
        shard,
        "label",
        [n for n in features if features[n].get("_type") == "ClassLabel"],
        _LABEL_NAMES,
    )
    names = features.get(label, {}).get("names")
    return _Columns(image, label, options.id_column, tuple(map(str, names)) if names else None)


def _guess(shard: Shard, kind: str, typed: Sequence[str], usual: Sequence[str]) -> str:
    candidates = typed or [name for name in usual if name in shard.schema.names]
    if len(candidates) == 1:
        return candidates[0]
    found = f"{', '.join(candidates)} could be it" if candidates else "none is called so"
    raise DataError(
        f"which column of {shard.path} is the {kind}? {found}; name it in "
        f"options.{kind}_column (columns: {', '.join(shard.schema.names)})"
    )


def _check_schema(shard: Shard, columns: _Columns) -> None:
    for name in (columns.image, columns.label, columns.id):
        if name is not None and name not in shard.schema.names:
            raise DataError(
                f"{shard.path} has no column {name!r}; it has {', '.join(shard.schema.names)}"
            )
    kind = shard.schema.field(columns.image).type
    encoded = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not encoded and not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise DataError(
            f"the column {columns.image!r} of {shard.path} is {kind}, but must hold "
            "encoded images (bytes, or a struct with bytes)"
        )
    label = _value_type(shard.schema.field(columns.label).type)
    if not (pa.types.is_integer(label) or pa.types.is_boolean(label) or _is_text(label)):
        raise DataError(
            f"the column {columns.label!r} of {shard.path} is {label}, but must hold "
            "whole numbers, truth values or class names"
        )


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _encode(
    raw: Mapping[Split, list[Any]], columns: _Columns, path: Path
) -> tuple[tuple[str, ...] | None, dict[Split, list[int]]]:
    """Return the source's own class names, if it has any, and labels as indices."""
    for split, values in raw.items():
        if None in values:
            raise DataError(
                f"row {values.index(None)} of {split} has no label (column {columns.label!r})"
            )
    if not any(isinstance(value, str) for values in raw.values() for value in values):
        return columns.class_label, {split: list(map(int, raw[split])) for split in raw}
    names = columns.class_label or tuple(sorted(set(raw["train"])))
    number = {name: label for label, name in enumerate(names)}
    for split, values in raw.items():
        for row, value in enumerate(values):
            if value not in number:
                raise DataError(
                    f"row {row} of {split} has the label {value!r}, which is none of "
                    f"the {len(names)} classes of {path}"
                )
    return names, {split: [number[value] for value in values] for split, values in raw.items()}


def _folder(root: Path) -> Path:
    return root.parent if root.is_file() else root


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
