"""Reading the descriptions: YAML to `Description`, and its mistakes to sentences."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from taskgrid.data.published.description import Description
from taskgrid.errors import ArtifactError, DataError
from taskgrid.plugins.resources import resource_names, resource_path
from taskgrid.sentences import choices, pydantic_sentence


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
        raise DataError(
            f"there is no description of a data set {dataset!r}; {choices(dataset, known)}"
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
        sentence = pydantic_sentence(error, Description, hidden=["name"])
        raise DataError(f"{where}: {sentence}") from None
    if description.split is not None:
        try:
            resource_path(f"splits/{description.split}.json")
        except ArtifactError as error:
            raise DataError(f"{where}: split is {description.split!r}, but {error}") from error
    return description


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
