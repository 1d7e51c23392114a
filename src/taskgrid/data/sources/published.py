"""Data sets of the literature: from the hub's cache, or from their owners' own files.

What a data set consists of is described in `resources/tasks/<dataset>.yaml`. Labels are mapped by
name to the description's classes, and the numbers of images are compared with it before any is
decoded.

``layout: hub``: Parquet files in the cache of the hub's clients (``path``; None is the usual one),
at the commit that the download recorded (``download``, its manifest), else at the description's.
Nothing is asked of the network here.

``layout: original``: ``path`` is the folder of the owners' files; `taskgrid.data.published.layouts`
reads them.

**A data set that the papers do not train on** (ImageNet, the control task) has ``train_images``: its
validation images are the papers' (the permutation that cuts them from all training images), but of
the other 1.28 million only ``train_images`` are decoded, the first of the same permutation. They are
there for what needs unlabelled or calibration images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from taskgrid import plugins
from taskgrid.data.classnames import resolve_classes, resolve_templates
from taskgrid.data.published.description import Description
from taskgrid.data.published.downloaded import Download
from taskgrid.data.published.labels import label_map
from taskgrid.data.published.layouts.parts import Parts, Reader
from taskgrid.data.published.request import Published
from taskgrid.data.sources.checks import check_labels, required_path
from taskgrid.data.sources.parquet import ParquetSource
from taskgrid.data.sources.picked import Pick, PickedSource
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.data.sources.shards import class_names
from taskgrid.errors import ArtifactError, DataError
from taskgrid.remote.cache import NEWEST, CachedRepository, Snapshot
from taskgrid.store.images import SPLITS, Split

_HELD_OUT_FRACTION = 0.1
_HELD_OUT_LIMIT = 5000


def open_task(task: TaskData) -> Source:
    """Open a published data set.

    Raises:
        DataError: if files are missing or damaged, labels cannot be mapped by name, or the number
            of images or classes is not the expected one.
        ArtifactError: if the download's manifest or the shipped list of splits is damaged.
    """
    published = Published.of(task)
    description, options = published.description, published.options
    names, templates = description.prompts(options.prompts)
    classes = names if task.classes is None else resolve_classes(task, own=description.keys)
    look = _Look(classes, resolve_templates(task, default=templates))
    source = (
        _from_hub(task, published, look)
        if options.layout == "hub"
        else _from_original(task, published, look)
    )
    _check_counts(source, published)
    train_images = options.train_images or description.train_images
    return source if train_images is None else _with_validation(source, train_images)


@dataclass(frozen=True)
class _Look:
    classes: tuple[str, ...]
    templates: tuple[str, ...]


# The hub


class RelabelledSource(Source):
    """Another source with other class names, in another order."""

    def __init__(self, source: Source, labels: Sequence[int], look: _Look) -> None:
        """Let the label ``l`` of ``source`` be ``labels[l]``."""
        self._source, self._labels = source, labels
        self.classes, self.templates = look.classes, look.templates

    def splits(self) -> tuple[Split, ...]:
        """Return the splits of the source."""
        return self._source.splits()

    def count(self, split: Split) -> int:
        """Return the number of images of a split."""
        return self._source.count(split)

    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the images of a split."""
        return map(self._relabelled, self._source.entries(split))

    def chosen(self, split: Split, rows: Sequence[int]) -> Iterator[Entry]:
        """Yield some images of a split."""
        return map(self._relabelled, self._source.chosen(split, rows))

    def _relabelled(self, entry: Entry) -> Entry:
        return Entry(entry.id, self._labels[entry.label], entry.load)


def _from_hub(task: TaskData, published: Published, look: _Look) -> Source:
    hub, description = published.hub, published.description
    snapshot = _snapshot(task, published)
    files = {split: list(snapshot.matching(pattern)) for split, pattern in hub.files.items()}
    own = class_names(files["train"][0], hub.label)
    # A column of bare numbers has the numbers for names.
    numbers = None if own is not None else [str(label) for label in range(len(look.classes))]
    parquet = ParquetSource(
        TaskData(
            name=task.name,
            source="parquet",
            path=str(files["train"][0].parent),
            classes=numbers,
            options={"image_column": hub.image, "label_column": hub.label},
        ),
        files["train"][0].parent,
        files,
    )
    table = {**(hub.names or {}), **(published.options.names or {})}
    return RelabelledSource(parquet, label_map(description, parquet.classes, table), look)


def _snapshot(task: TaskData, published: Published) -> Snapshot:
    hub = published.hub
    place = CachedRepository(hub.repository, "dataset", task.path)
    manifest = None
    if published.options.download is not None:
        manifest = Download.read(published.options.download)
        _check_manifest(manifest, published)
    revision = (manifest and manifest.commit) or hub.revision or NEWEST
    snapshot = place.snapshot(revision, tuple(hub.files.values()))
    if snapshot is None:
        raise DataError(
            f"{hub.repository} at {revision} is not all in {place.root}; download it (the rule "
            "`download` does), or set `path` to the Hugging Face cache that has it"
        )
    _check_sizes(snapshot, manifest)
    return snapshot


def _check_manifest(manifest: Download, published: Published) -> None:
    wanted = (published.description.name, published.hub.repository)
    if (manifest.dataset, manifest.repository) != wanted:
        raise ArtifactError(
            f"{published.options.download} is of {manifest.dataset} ({manifest.repository}), not of "
            f"{wanted[0]} ({wanted[1]}); delete it and run again"
        )


def _check_sizes(snapshot: Snapshot, manifest: Download | None) -> None:
    paths = dict(snapshot.files)
    for file in manifest.files if manifest is not None else ():
        size = paths[file.name].stat().st_size if file.name in paths else None
        if size is None or size != file.bytes:
            raise ArtifactError(
                f"{paths.get(file.name, file.name)} has {size or 'no'} bytes, but had {file.bytes} "
                "when it was downloaded; delete it and download it again"
            )


# The owners' files


class ListedSource(Source):
    """Images that a reader of original files has listed."""

    def __init__(self, parts: Parts, labels: Mapping[Split, Sequence[int]], look: _Look) -> None:
        """Take the images of ``parts``, with labels of the description."""
        self._parts, self._labels = parts, labels
        self.classes, self.templates = look.classes, look.templates

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that were listed."""
        return tuple(split for split in SPLITS if split in self._parts)

    def count(self, split: Split) -> int:
        """Return the number of images of a split."""
        return len(self._labels[split])

    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the images of a split."""
        return self.chosen(split, range(self.count(split)))

    def chosen(self, split: Split, rows: Sequence[int]) -> Iterator[Entry]:
        """Yield some images of a split."""
        part, labels = self._parts[split], self._labels[split]
        for row in rows:
            yield Entry(part.ids[row], labels[row], partial(part.load, row))


def _from_original(task: TaskData, published: Published, look: _Look) -> Source:
    root = required_path(task)
    module: Any = plugins.load("layout", published.reader)
    reader: Reader = module
    parts = reader.read(root, published.settings(module.Settings), tuple(published.expected))
    labels = _labels(parts, published.description)
    for split, values in labels.items():
        if not values:
            raise DataError(
                f"{root} holds no images of the split {split}; they are missing, or lie elsewhere: "
                "docs/datasets.md says which files the data set consists of and where they go"
            )
        check_labels(split, values, len(look.classes))
    return ListedSource(parts, labels, look)


def _labels(parts: Parts, description: Description) -> dict[Split, Sequence[int]]:
    """Return labels of the description, mapped by name where the files have names."""
    names = sorted(
        {label for part in parts.values() for label in part.labels if isinstance(label, str)}
    )
    number = dict(zip(names, label_map(description, names), strict=True)) if names else {}
    return {
        split: [number[label] if isinstance(label, str) else label for label in part.labels]
        for split, part in parts.items()
    }


# Both


def _check_counts(source: Source, published: Published) -> None:
    found: dict[Split, int] = {split: source.count(split) for split in source.splits()}
    accepted = ", ".join(f"{split}: {count}" for split, count in found.items())
    for split, expected in published.expected.items():
        if expected is not None and found.get(split) != expected:
            raise DataError(
                f"its split {split} has {found.get(split, 0)} images, but the data set "
                f"{published.description.name!r} has {expected} in the layout "
                f"`{published.options.layout}`; complete it, or accept what is there by "
                f"`options.counts: {{{accepted}}}` (or `counts: false`)"
            )


def _with_validation(source: Source, train_images: int) -> Source:
    # Imported here: it draws with torch, which nothing else here needs.
    from taskgrid.data.splits import held_out_count, hold_out

    total = source.count("train")
    kept, held = hold_out(total, held_out_count(total, _HELD_OUT_FRACTION, _HELD_OUT_LIMIT), seed=0)
    picks = {split: Pick(split) for split in source.splits()}
    picks["train"] = Pick("train", sorted(kept[:train_images]))
    picks["val"] = Pick("train", sorted(held))
    return PickedSource(source, picks)
