"""Parquet and Arrow files in Hugging Face's layout: encoded images beside labels.

``path`` is a folder of shards (``data/train-00000-of-00002.parquet``, ``test-*``, ``validation-*``,
or what ``save_to_disk`` writes: ``train/data-*.arrow``) or one file of training images. The image
column is a struct ``{bytes, path}`` or plain bytes; the label column holds class indices, truth values
or class names. Class names come from the ``ClassLabel`` in the schema's ``huggingface`` metadata of
each file: numbers are mapped by name where files number the classes differently.
"""

from __future__ import annotations

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
    check_presence,
    check_unique,
    numbered_id,
    required_path,
)
from taskgrid.data.sources.options import SourceOptions, parse_options
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.data.sources.shards import Shard, features_of
from taskgrid.data.sources.table_files import Files, check_shards, matching_files, usual_files
from taskgrid.data.sources.table_labels import encode_labels
from taskgrid.errors import DataError
from taskgrid.store.images import SPLITS, Split

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels")


class ParquetOptions(SourceOptions):
    """Options of the source ``parquet``."""

    image_column: str | None = None
    """The column of encoded images; found by itself where there is just one."""
    label_column: str | None = None
    """The column of labels; found by itself where there is just one."""
    id_column: str | None = None
    """A column of unique names; without it images are numbered."""
    files: dict[Split, str] | None = None
    """A glob below `path` for each split, where the files are not called as Hugging Face calls them."""


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    id: str | None


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
        encoded = encode_labels(self._shards, self._columns.label)
        self._labels = encoded.labels
        self.notes += encoded.notes
        implied = 1 + max((max(labels) for labels in self._labels.values() if labels), default=-1)
        self.classes = resolve_classes(
            task,
            own=encoded.classes,
            labels=implied,
            beside=_folder(root) / "classes.json",
            alphabetical=encoded.alphabetical,
        )
        self.templates = resolve_templates(task)
        for split, labels in self._labels.items():
            if not labels:
                raise DataError(f"{', '.join(map(str, files[split]))} hold no images")
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

    def check_presence(self, task: TaskData) -> None:
        """Refuse classes without images, as `checks.check_presence` does.

        Raises:
            DataError: with the first such class.
        """
        check_presence(task, self._labels, self.classes)

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
            root = _folder(self._root)
            path: Path = root / image["path"]
            if not path.is_file():
                raise DataError(
                    f"image {name!r} in {shard.path} has no bytes, and its file "
                    f"{path} does not exist; embed the images"
                )
            if not path.is_relative_to(root) or ".." in path.parts[len(root.parts) :]:
                raise DataError(
                    f"image {name!r} in {shard.path} has no bytes, and its file {path} is not below "
                    f"{root}; embed the images"
                )
            return path
        raise DataError(f"image {name!r} in {shard.path} is empty; take the row out")

    def _names(self, split: Split) -> list[str]:
        if self._columns.id is None:
            return [numbered_id(split, row) for row in range(self.count(split))]
        values = [
            value for shard in self._shards[split] for (value,) in shard.rows([self._columns.id])
        ]
        if None in values:
            raise DataError(
                f"row {values.index(None)} of {split} has no id (column {self._columns.id!r})"
            )
        names = list(map(str, values))
        check_unique(split, names)
        return names


def open_task(task: TaskData) -> ParquetSource:
    """Open a task's Parquet or Arrow files.

    Raises:
        DataError: if a file is missing or damaged, lacks the image or label column, files may be
            meant in two ways, or a class has no images.
        SplitError: if there are no training images.
    """
    root = required_path(task)
    options = parse_options(task, ParquetOptions)
    notes: tuple[str, ...] = ()
    if root.is_file():
        if options.files is not None:
            raise DataError(f"options.files needs a folder as path, {root} is a file")
        check_shards([root])
        files: Files = {"train": [root]}
    elif options.files is not None:
        files = matching_files(root, options.files)
    else:
        files, notes = usual_files(root)
    source = ParquetSource(task, root, files)
    source.notes += notes
    source.check_presence(task)
    return source


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
    return _Columns(image, label, options.id_column)


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
    names = shard.schema.names
    for name in (columns.image, columns.label, columns.id):
        if name is not None and names.count(name) != 1:
            found = "no column" if name not in names else f"{names.count(name)} columns"
            raise DataError(f"{shard.path} has {found} {name!r}; it has {', '.join(names)}")
    kinds = [(columns.image, _is_image, "encoded images (bytes, or a struct with bytes)")]
    kinds += [(columns.label, _is_label, "whole numbers, truth values or class names")]
    kinds += [(columns.id, _is_id, "whole numbers or text")] if columns.id is not None else []
    for name, fits, expected in kinds:
        kind = shard.schema.field(name).type
        if not fits(kind):
            raise DataError(
                f"the column {name!r} of {shard.path} is {kind}, but must hold {expected}"
            )


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _is_binary(kind)
    fields = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
    path = fields.get("path")
    return _is_binary(fields.get("bytes")) and (
        path is None or _is_text(path) or pa.types.is_null(path)
    )


def _is_label(kind: pa.DataType) -> bool:
    return _is_id(kind) or bool(pa.types.is_boolean(kind))


def _is_id(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_integer(kind)) or _is_text(kind)


def _is_binary(kind: pa.DataType | None) -> bool:
    return kind is not None and bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _folder(root: Path) -> Path:
    return root.parent if root.is_file() else root
