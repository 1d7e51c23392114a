"""Decoding a task once: from its source to files of pixels and a manifest.

Prepared pixels serve everything that looks at a whole image. Random crops need more of it, and are
cut from the training images' originals where those are kept (`Keep`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from taskgrid.data.decode import MOST_PIXELS
from taskgrid.data.manifest import DatasetManifest
from taskgrid.data.preprocess import prepare, whole
from taskgrid.data.sources.opening import about, open_source
from taskgrid.data.sources.seam import Entry, Source, TaskData
from taskgrid.errors import DataError, SplitError
from taskgrid.machine.meter import Meter, Tally
from taskgrid.store.atomic import write_json
from taskgrid.store.images import PreparedImage, Split, pixel_digest, write_images
from taskgrid.store.originals import Original, OriginalsWriter, write_originals
from taskgrid.store.seals import seal_of

Item = TypeVar("Item")
Result = TypeVar("Result")

Keep = Literal["none", "oblong", "all"]
"""Which training images are kept as originals beside the prepared ones, which a random crop is cut
from: none (of a task that never trains), those that are not square (the centre crop has cut them),
or all that the preparation changes, so that crops of small or large square images are exact too."""


def build_dataset(
    task: TaskData,
    image_size: int,
    interpolation: str,
    out_images: str | Path,
    out_manifest: str | Path,
    *,
    out_originals: str | Path | None = None,
    keep: Keep = "oblong",
    progress: Meter | None = None,
    threads: int = 1,
) -> DatasetManifest:
    """Decode, check, prepare and store every image of a task.

    Images are stored in the source's order: train, then val, then test. The bytes written depend on
    the data alone, not on the number of threads.

    Args:
        task: the task; its source is opened here.
        image_size: side of the prepared images, the model's input size.
        interpolation: ``bicubic`` or ``bilinear``, the model's.
        out_images: the Arrow file to write (`taskgrid.store.images`).
        out_manifest: the JSON manifest to write.
        out_originals: the Arrow file of originals to write (`taskgrid.store.originals`), also when
            none is kept; None writes none.
        keep: which training images are kept as originals.
        progress: called once with the number of images; what it returns is entered, and told of
            each image: ``functools.partial(Progress, "dataset mnist")``.
        threads: how many images are decoded at a time.

    Raises:
        DataError: if an image cannot be read, two images of a split share an id, or a label names
            no class; nothing is left at any path.
        SplitError: if two of the source's splits share an id, and the task does not allow it.
        ArtifactError: if the file system refuses to write.
    """
    source = open_source(task)
    counts: dict[str, int] = {split: source.count(split) for split in source.splits()}
    total = sum(counts.values())
    with (
        about(task),
        progress(total) if progress is not None else nullcontext(None) as counter,
        ExitStack() as stack,
    ):
        if not total:
            raise DataError(f"its source {task.source!r} has no images")
        kept = stack.enter_context(write_originals(out_originals)) if out_originals else None
        ready = partial(
            _prepared,
            image_size=image_size,
            interpolation=interpolation,
            keep=keep if kept is not None else "none",
        )
        pairs = _in_order(ready, _checked(source, allow_overlap=task.allow_overlap), threads)
        images = _counted(_parted(pairs, kept), counter)
        index = write_images(out_images, images, image_size, interpolation)
    manifest = DatasetManifest(
        task=task.name,
        classes=source.classes,
        templates=source.templates,
        counts=counts,
        digest=index.content_digest(),
        images=seal_of(out_images),
        image_size=image_size,
        interpolation=interpolation,
        originals=seal_of(out_originals) if out_originals and kept and kept.count else None,
        # Published data that are counted otherwise than the papers' are a part of them.
        partial=task.limit is not None or task.options.get("counts") is not None,
        notes=source.notes,
    )
    write_json(out_manifest, asdict(manifest))
    return manifest


@dataclass(frozen=True)
class _Item:
    split: Split
    id: str
    entry: Entry


def _prepared(
    item: _Item, image_size: int, interpolation: str, keep: Keep
) -> tuple[PreparedImage, Original | None]:
    pixels = item.entry.load()
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"image {item.entry.id!r} is {pixels.dtype} of shape {pixels.shape}, but must be uint8 "
            "of shape H x W x 3"
        )
    height, width = pixels.shape[:2]
    # The shorter side is resized to the model's, the longer one with it.
    if max(height, width) * image_size**2 > MOST_PIXELS * min(height, width):
        raise DataError(
            f"image {item.entry.id!r} has {width} x {height} pixels, too narrow to be resized to a side "
            f"of {image_size}; crop it or take it out"
        )
    image = PreparedImage(
        id=item.id,
        label=item.entry.label,
        origin=item.split,
        digest=pixel_digest(pixels),
        pixels=prepare(pixels, image_size, interpolation),
    )
    wanted = {
        "none": False,
        "oblong": height != width,
        "all": (height, width) != (image_size, image_size),
    }[keep]
    if item.split != "train" or not wanted:
        return image, None
    return image, Original(height, width, whole(pixels, image_size))


def _parted(
    pairs: Iterable[tuple[PreparedImage, Original | None]], kept: OriginalsWriter | None
) -> Iterator[PreparedImage]:
    """Yield the prepared images; put the originals aside."""
    for row, (image, original) in enumerate(pairs):
        if kept is not None and original is not None:
            kept.add(row, image.digest, original)
        yield image


def _checked(source: Source, *, allow_overlap: bool) -> Iterator[_Item]:
    """Yield all entries, each with an id that is unique in the task."""
    origin: dict[str, Split] = {}
    for split in source.splits():
        for entry in source.entries(split):
            if not 0 <= entry.label < len(source.classes):
                raise DataError(
                    f"image {entry.id!r} of {split} has label {entry.label}, but there are "
                    f"{len(source.classes)} classes"
                )
            name = entry.id
            if origin.get(name, split) != split:
                if not allow_overlap:
                    raise SplitError(
                        f"the id {name!r} stands in {origin[name]} and in {split}; rename one, or set on "
                        "the task `duplicates: drop_from_train`, where it is the same image, or "
                        "`allow_overlap: true`, where splits may overlap"
                    )
                name = f"{split}:{name}"
            if name in origin:
                raise DataError(f"the id {entry.id!r} stands twice in {split}; ids must be unique")
            origin[name] = split
            yield _Item(split, name, entry)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Map in threads, in the order of ``items``, with few items in flight."""
    if threads <= 1:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _counted(images: Iterable[PreparedImage], counter: Tally | None) -> Iterator[PreparedImage]:
    for image in images:
        yield image
        if counter is not None:
            counter.advance(1)
