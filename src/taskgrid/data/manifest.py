"""Manifests of decoded images and of their splits: small JSON files that later rules read.

Nothing here decodes or splits, so that whoever reads a manifest depends on what it says and not on
the code that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from taskgrid.errors import LineageError
from taskgrid.provenance.digests import digest
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import SPLITS, ImageStore, Split
from taskgrid.store.seals import damaged


@dataclass(frozen=True)
class DatasetManifest:
    """What a file of images holds.

    Attributes:
        task: name of the task.
        classes: class names in label order.
        templates: prompt templates.
        counts: number of images in each of the source's own splits.
        digest: digest of all (id, label, origin, pixel digest), whatever their order; it does not
            depend on how the images were resized.
        images: seal of the file of images: a digest of its bytes.
        image_size: side of the prepared images.
        interpolation: how they were resized.
        originals: seal of the file of originals; None if there is none, or none is kept in it.
        partial: whether just some of the source's images were asked for, so that classes may be without.
        notes: what a person should know of how the source was read, such as what was left out.
    """

    task: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    counts: dict[str, int]
    digest: str
    images: str
    image_size: int
    interpolation: str
    originals: str | None = None
    partial: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> DatasetManifest:
        """Read a manifest.

        Raises:
            ArtifactError: if the file is missing or no manifest.
        """
        value = read_json(path)
        try:
            return cls(
                **{
                    **value,
                    "classes": tuple(value["classes"]),
                    "templates": tuple(value["templates"]),
                    "notes": tuple(value.get("notes", ())),
                }
            )
        except (KeyError, TypeError) as error:
            raise damaged(path, f"it is no manifest of a dataset: {error}") from error


@dataclass(frozen=True)
class SplitManifest:
    """The images of a task's splits, by id.

    Ids are sorted: a manifest, its digest and everything in "split order" (per-sample outcomes, for
    one) depend on which images are in a split, never on the order in which files were listed.

    Attributes:
        task: name of the task.
        train: ids that train.
        val: ids on which lambda is selected.
        test: ids that are read for chosen points only.
        classes: class names in label order.
        dropped: training images left out, as duplicates of images held out from them.
        dataset: digest of the dataset (ids, labels, pixels) that was split.
        digest: digest of ``dataset`` and of the ids of the three splits.
        rule: where the splits came from, in words.
    """

    task: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    classes: tuple[str, ...]
    dropped: tuple[str, ...]
    dataset: str
    digest: str
    rule: str

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each split, and of those dropped."""
        return {name: len(getattr(self, name)) for name in (*SPLITS, "dropped")}

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the ids of a split, in split order."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def write(self, path: str | Path) -> None:
        """Write the manifest as JSON.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        write_json(path, {**asdict(self), "counts": self.counts})

    @classmethod
    def read(cls, path: str | Path) -> SplitManifest:
        """Read a manifest and check its ids against its digest.

        Raises:
            ArtifactError: if the file is missing, altered, or no split manifest.
        """
        value = read_json(path)
        try:
            value.pop("counts")
            lists = ("train", "val", "test", "classes", "dropped")
            manifest = cls(**{**value, **{name: tuple(value[name]) for name in lists}})
        except (AttributeError, KeyError, TypeError) as error:
            raise damaged(path, f"it is no split manifest: {error}") from error
        found = split_digest(manifest.dataset, {split: manifest.ids(split) for split in SPLITS})
        if found != manifest.digest:
            raise damaged(path, f"its ids have digest {found}, it says {manifest.digest}")
        return manifest


def check_images(store: ImageStore, split: SplitManifest) -> None:
    """Refuse images that a split was not made from, though they may have the same ids.

    Raises:
        LineageError: names the file and both digests.
    """
    found = store.index.content_digest()
    if found != split.dataset:
        raise LineageError(
            f"the split of task {split.task!r} was made from other images ({split.dataset}) than those in "
            f"{store.path} ({found}); run the dataset and split rules again"
        )


def split_digest(dataset: str, ids: Mapping[Split, Sequence[str]]) -> str:
    """Return the digest of a split: of the dataset's digest and of the ids of each split."""
    return digest({"dataset": dataset, **{split: list(names) for split, names in ids.items()}})
