"""Labels of tables as class indices: mapped by name wherever files have names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from taskgrid.data.classnames import plain
from taskgrid.data.sources.shards import Shard, class_label
from taskgrid.errors import DataError
from taskgrid.store.images import Split


@dataclass(frozen=True)
class EncodedLabels:
    """Labels of all splits.

    Attributes:
        labels: class indices of each split, file by file.
        classes: the files' own class names, in the order of the indices; None if they have none.
        alphabetical: whether that order is no more than that of their letters.
        notes: what could not be compared.
    """

    labels: Mapping[Split, list[int]]
    classes: tuple[str, ...] | None
    alphabetical: bool
    notes: tuple[str, ...]


def encode_labels(shards: Mapping[Split, Sequence[Shard]], column: str) -> EncodedLabels:
    """Return the labels of all splits.

    The names of the first training file that has any (its ``ClassLabel``) number the classes. Without
    them, labels that are text do, sorted.

    Raises:
        DataError: if a row has no label, or one that is none of the classes.
    """
    values = {
        split: [[value for (value,) in shard.rows([column])] for shard in shards[split]]
        for split in shards
    }
    _refuse_missing(values, column)
    names = {shard.path: class_label(shard, column) for split in shards for shard in shards[split]}
    own = next((found for shard in shards["train"] if (found := names[shard.path])), None)
    texts = {plain(value) for rows in values["train"] for value in rows if isinstance(value, str)}
    classes = own or (tuple(sorted(texts)) if texts else None)
    place = {name: label for label, name in enumerate(classes or ())}
    labels: dict[Split, list[int]] = {}
    notes = []
    for split in shards:
        encoded: list[int] = []
        labels[split] = encoded
        for shard, rows in zip(shards[split], values[split], strict=True):
            here = names[shard.path] or own or ()
            same = here == (own or ())
            if own and names[shard.path] is None and rows and not isinstance(rows[0], str):
                notes.append(
                    f"{shard.path.name} names no classes, so that its numbers are taken for those of "
                    f"{shards['train'][0].path.name}"
                )
            for value in rows:
                named = value
                if isinstance(value, str):
                    label = place.get(plain(value))
                elif same or value < 0:
                    label = int(value) if own is not None or not texts else None
                else:
                    named = here[value] if value < len(here) else value
                    label = place.get(named) if place else int(value)
                if label is None:
                    raise DataError(
                        f"row {len(encoded)} of {split} has the label {named!r}, which is none of the "
                        f"{len(place)} classes of {shards['train'][0].path}"
                    )
                encoded.append(label)
    return EncodedLabels(labels, classes, own is None, tuple(notes))


def _refuse_missing(values: Mapping[Split, Sequence[Sequence[Any]]], column: str) -> None:
    for split, found in values.items():
        for row, value in enumerate(chain.from_iterable(found)):
            if value is None:
                raise DataError(f"row {row} of {split} has no label (column {column!r})")
