"""What is known of a data set of the literature: `resources/tasks/<dataset>.yaml`, validated.

A description holds facts and nothing that runs: class names and templates of the papers, expected
counts, the repository on the Hugging Face hub, the original files. No image is needed to read one.

Labels are mapped to its classes by *name* (`taskgrid.data.published.labels`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    StrictBool,
    StrictStr,
)
from pydantic.dataclasses import dataclass

from taskgrid.errors import DataError
from taskgrid.sentences import choices
from taskgrid.store.images import Split

Layout = Literal["hub", "original"]

_STRICT = ConfigDict(extra="forbid")

_REVISION = re.compile("[0-9a-f]{40}")


def _filled(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("must not be empty")
    return value


Text = Annotated[StrictStr, BeforeValidator(_filled)]
Md5 = Annotated[StrictStr, Field(pattern="^[0-9a-f]{32}$")]
Sha256 = Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]
Revision = Annotated[StrictStr, Field(pattern=f"^{_REVISION.pattern}$")]


def _inside(value: Any) -> Any:
    if isinstance(value, str):
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError("must be a path below the data set's folder")
    return value


RelativePath = Annotated[StrictStr, BeforeValidator(_inside)]


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class Hub:
    """A data set on the Hugging Face hub, as Parquet files.

    Attributes:
        repository: its name, `owner/name`.
        revision: commit that is downloaded; None where none could be verified. Then the first
            download resolves the newest one, records it, and later runs are held to it.
        files: pattern of the files of each split that is used.
        image: column of the images.
        label: column of the labels.
        names: the repository's name of each class -> key in `classes`. A column of bare numbers or
            truth values has the numbers (`0`, `1`) for names. None: names match after normalisation
            (`labels.label_map`).
    """

    repository: Annotated[StrictStr, Field(pattern="^[^/ ]+/[^/ ]+$")]
    files: Mapping[Split, Text]
    revision: Revision | None = None
    image: Text = "image"
    label: Text = "label"
    names: Mapping[StrictStr, StrictStr] | None = None


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class OriginalFile:
    """A file that the owners (or a mirror with the same bytes) offer for download.

    Attributes:
        url: where it is.
        to: where it goes, below the folder of the data sets.
        md5: its MD5, where one is known.
        sha256: its SHA-256, where one is known.
        bytes: its size, where it is known.
        unpack: whether it is an archive to be unpacked in the folder it lies in.
    """

    url: Annotated[StrictStr, Field(pattern="^(https?|ftp|file)://")]
    to: RelativePath
    md5: Md5 | None = None
    sha256: Sha256 | None = None
    bytes: PositiveInt | None = None
    unpack: StrictBool = False


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class Original:
    """A data set in its owners' own file layout.

    Attributes:
        reader: name of the reader that understands the layout.
        place: what lies where, for a person; paths are below the folder of the data sets.
        needs: files and folders without which the data set is not there.
        options: settings of the reader.
        files: what can be downloaded; empty where all is put there by hand.
        manual: whether something must be put there by hand.
    """

    reader: Text
    place: Text
    needs: Annotated[tuple[RelativePath, ...], Field(min_length=1)]
    options: Mapping[StrictStr, Any] = Field(default_factory=dict)
    files: tuple[OriginalFile, ...] = ()
    manual: StrictBool = False


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class Variant:
    """Prompts of a lineage that differ from the description's own.

    Attributes:
        source: who uses them.
        classes: key in `classes` -> name in prompts, for the names that differ.
        templates: the templates, where they differ.
    """

    source: Text
    classes: Mapping[StrictStr, Text] = Field(default_factory=dict)
    templates: tuple[StrictStr, ...] | None = None


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class Description:
    """A data set of the literature.

    Attributes:
        name: name of the description (`cars`).
        title: name of the data set (`Stanford Cars`).
        homepage: the owners' page.
        licence: the licence as the owners state it.
        terms: what a person should know before a download, or None.
        counts: images of each of the data set's own splits that the literature uses.
        hub_counts: the same for the hub's repository, where it differs; None within: not known.
        split: name of the shipped split list, for original files without an official split.
        train_images: training images that are decoded, of a data set that the papers do not train
            on (the control task); None: all.
        classes: the original name of each class -> its name in prompts, in label order.
        templates: the literature's prompt templates, each with one `{}`.
        variants: prompts of lineages that differ.
        hub: the data set on the hub, or None.
        original: the data set in its original layout.
        notes: what else is worth knowing.
    """

    name: Text
    title: Text
    homepage: Text
    licence: Text
    counts: Mapping[Split, PositiveInt]
    classes: Mapping[StrictStr, Text]
    templates: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    original: Original
    hub: Hub | None = None
    terms: Text | None = None
    hub_counts: Mapping[Split, PositiveInt | None] | None = None
    split: Text | None = None
    train_images: PositiveInt | None = None
    variants: Mapping[StrictStr, Variant] = Field(default_factory=dict)
    notes: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        """Check what the parts say of each other.

        Raises:
            ValueError: with the first contradiction; `read_description` turns it into a sentence.
        """
        _check_classes(self.classes)
        _check_templates("templates", self.templates)
        _check_splits("counts", self.counts)
        if self.hub is not None:
            _check_splits("hub.files", self.hub.files)
            self._check_hub(self.hub)
        elif self.hub_counts is not None:
            raise ValueError("hub_counts is given, but there is no hub")
        for name, variant in self.variants.items():
            unknown = [key for key in variant.classes if key not in self.classes]
            if unknown:
                raise ValueError(f"variants.{name}.classes names {unknown[0]!r}, which is no class")
            if variant.templates is not None:
                _check_templates(f"variants.{name}.templates", variant.templates)

    @property
    def keys(self) -> tuple[str, ...]:
        """The classes as the original names them, in label order."""
        return tuple(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as prompts name them, in label order."""
        return tuple(self.classes.values())

    def prompts(self, variant: str | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return class names in label order, and templates; of a lineage that differs, by name.

        Raises:
            DataError: if there is no such variant.
        """
        if variant is None:
            return self.names, self.templates
        if variant not in self.variants:
            raise DataError(
                f"the data set {self.name!r} has no prompts called {variant!r}; "
                f"{choices(variant, self.variants)}"
            )
        other = self.variants[variant]
        names = tuple(other.classes.get(key, name) for key, name in self.classes.items())
        return names, other.templates or self.templates

    def expected(self, layout: Layout) -> dict[Split, int | None]:
        """Return the number of images of each split of a layout; None where it is not known."""
        if layout == "original" or self.hub is None:
            return dict(self.counts)
        return {
            split: (self.hub_counts or {}).get(split, self.counts.get(split))
            for split in self.hub.files
        }

    def _check_hub(self, hub: Hub) -> None:
        unknown = [split for split in self.hub_counts or {} if split not in hub.files]
        if unknown:
            raise ValueError(f"hub_counts names {unknown[0]}, but hub.files does not")
        if hub.names is None:
            return
        wrong = [key for key in hub.names.values() if key not in self.classes]
        if wrong:
            raise ValueError(f"hub.names leads to {wrong[0]!r}, which is no class")
        missing = set(self.classes) - set(hub.names.values())
        if missing or len(hub.names) != len(self.classes):
            example = f" ({min(missing)!r} has none)" if missing else ""
            raise ValueError(
                f"hub.names has {len(hub.names)} names for {len(self.classes)} classes; "
                f"each class needs exactly one{example}"
            )


def _check_classes(classes: Mapping[str, str]) -> None:
    if len(classes) < 2:
        raise ValueError("classes must name at least two classes")


def _check_templates(key: str, templates: Sequence[str]) -> None:
    for template in templates:
        if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
            raise ValueError(
                f"{key} has {template!r}, which must contain {{}} exactly once, and no other brace"
            )


def _check_splits(key: str, value: Mapping[Split, Any]) -> None:
    for split in ("train", "test"):
        if split not in value:
            raise ValueError(f"{key} has no {split}")
