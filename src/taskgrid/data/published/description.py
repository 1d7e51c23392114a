"""What is known of a data set of the literature: `resources/tasks/<dataset>.yaml`, validated.

A description holds facts and nothing that runs: class names and templates of the papers, expected
counts, the repository on the Hugging Face hub, the original files. No image is needed to read one.

Labels are mapped by *name* (`Description.label_map`): the same data set has its classes in another
order, or under other names, on the hub, in the original files and in the papers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    StrictBool,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from taskgrid.errors import ArtifactError, DataError
from taskgrid.plugins.resources import resource_names, resource_path
from taskgrid.store.images import Split

Layout = Literal["hub", "original"]

_STRICT = ConfigDict(extra="forbid")

_REVISION = re.compile("[0-9a-f]{40}")


def _filled(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty")
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
            (`label_map`).
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
                f"allowed: {', '.join(self.variants) or 'none'}"
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

    def label_map(
        self, names: Sequence[str], table: Mapping[str, str] | None = None
    ) -> tuple[int, ...]:
        """Return the label here of each class of a source, found by name.

        Names match a class's key or, where that does not do for all of them, its name in prompts;
        upper and lower case, spaces, `_`, `/` and `-` make no difference.

        Args:
            names: the source's names of its classes, in the source's label order.
            table: source's name -> key in `classes`, for names that differ; `hub.names` for the
                hub's files.

        Raises:
            DataError: if a name matches no class, or a class has none; says which.
        """
        found = _match(names, self.keys)
        if None in found:
            by_prompt = _match(names, self.names)
            found = by_prompt if None not in by_prompt else found
        labels = {key: label for label, key in enumerate(self.classes)}
        for row, name in enumerate(names):
            if table is not None and name in table:
                found[row] = labels.get(table[name])
        return self._complete(names, found)

    def _complete(self, names: Sequence[str], found: Sequence[int | None]) -> tuple[int, ...]:
        complete = [label for label in found if label is not None]
        if len(complete) == len(found) and sorted(complete) == list(range(len(self.classes))):
            return tuple(complete)
        where = f"the data set {self.name!r}"
        unknown = [name for name, label in zip(names, found, strict=True) if label is None]
        if unknown:
            close = difflib.get_close_matches(unknown[0], self.classes, n=1)
            hint = f" (the closest is {close[0]!r})" if close else ""
            raise DataError(
                f"{where} has no class called {unknown[0]!r}{hint}; {len(unknown)} of the source's "
                f"{len(names)} class names match none, so its labels cannot be mapped by name; "
                "give the option `names`, a mapping from the source's names to the classes"
            )
        missing = [key for label, key in enumerate(self.classes) if label not in complete]
        if missing:
            raise DataError(
                f"{where} has {len(self.classes)} classes, but the source names "
                f"{len(set(complete))}; {missing[0]!r} is missing"
            )
        raise DataError(f"two class names of the source are the same class of {where}")

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


def described() -> tuple[str, ...]:
    """Return the names of all descriptions, sorted; nothing is read.

    Raises:
        ArtifactError: if the project's resources are incomplete.
    """
    return resource_names("tasks", ".yaml")


def descriptions() -> dict[str, Description]:
    """Read all descriptions.

    Raises:
        DataError: if one has a mistake.
    """
    return {name: read_description(name) for name in described()}


def read_description(dataset: str, folder: Path | None = None) -> Description:
    """Read and validate the description of a data set.

    Args:
        dataset: its name, such as `cars`.
        folder: where to look; the project's own descriptions by default.

    Raises:
        DataError: if there is none, or it has a mistake; says where and which.
    """
    path = (folder or resource_path("tasks")) / f"{dataset}.yaml"
    if not path.is_file():
        known = described() if folder is None else sorted(p.stem for p in folder.glob("*.yaml"))
        close = difflib.get_close_matches(dataset, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"there is no description of a data set {dataset!r}; "
            f"{hint}allowed: {', '.join(known) or 'none'}"
        )
    try:
        # The loader is a SafeLoader that also refuses a key that stands twice.
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {_one_line(error)}") from error
    return parse_description(dataset, raw, str(path))


def parse_description(dataset: str, raw: Any, where: str) -> Description:
    """Validate a description.

    Args:
        dataset: name of the data set.
        raw: the description as read from YAML.
        where: what messages call it, such as its path.

    Raises:
        DataError: if it has a mistake; one sentence for the first one.
    """
    if not isinstance(raw, dict):
        raise DataError(f"{where} must hold a mapping (key: value)")
    try:
        description = _ADAPTER.validate_python({**raw, "name": dataset})
    except ValidationError as error:
        raise DataError(f"{where}: {_sentence(error)}") from None
    if description.split is not None:
        try:
            resource_path(f"splits/{description.split}.json")
        except ArtifactError as error:
            raise DataError(f"{where}: split is {description.split!r}, but {error}") from error
    return description


def normalised(name: str) -> str:
    """Return a class name as it is compared: lower case, runs of space, `_`, `/`, `-` as one space."""
    return re.sub(r"[\s_/-]+", " ", name).strip().casefold()


def _match(names: Sequence[str], own: Sequence[str]) -> list[int | None]:
    known: dict[str, int | None] = {}
    for label, name in enumerate(own):
        key = normalised(name)
        # Two classes of one name cannot be told apart by it.
        known[key] = None if key in known else label
    return [known.get(normalised(name)) for name in names]


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


_ADAPTER = TypeAdapter(Description)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that refuses a key that stands twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


def _sentence(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    # A misspelt key is also a missing one; say what was written.
    problem = min(problems, key=lambda found: found["type"] != "unexpected_keyword_argument")
    key = ".".join(str(step) for step in problem["loc"] if step != "[key]")
    kind, value = problem["type"], problem["input"]
    if kind == "unexpected_keyword_argument":
        *above, last = (str(step) for step in problem["loc"])
        allowed = _fields(above)
        close = difflib.get_close_matches(last, allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}; {hint}allowed here: {', '.join(allowed)}"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "value_error":
        message = str(problem["ctx"]["error"])
        return f"{key} {message}" if key else message
    if kind == "too_short":
        return f"{key} is empty"
    shown = f"the text {value!r}" if isinstance(value, str) else repr(value)
    if kind == "string_type":
        return f"{key} is {shown}, but must be text; put it in quotes"
    if kind == "literal_error":
        return f"{key} is {shown}; allowed: {problem['ctx']['expected']}"
    if kind == "string_pattern_mismatch":
        return f"{key} is {shown}, which does not match {problem['ctx']['pattern']}"
    if len(shown) > 80:
        shown = f"{shown[:77]}..."
    return f"{key} is {shown}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


_PARTS: Mapping[str, type[Any]] = {
    "": Description,
    "hub": Hub,
    "original": Original,
    "variants": Variant,
}


def _fields(place: Sequence[str]) -> list[str]:
    """Return the keys that may stand at a place of a description."""
    part = OriginalFile if place[1:2] == ["files"] else _PARTS[place[0] if place else ""]
    return [field.name for field in fields(part) if field.name != "name"]
