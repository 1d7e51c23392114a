"""Reading a configuration: from files or mappings, with one sentence per mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from taskgrid.config.root import Config
from taskgrid.config.sections.values import NAME_PATTERN
from taskgrid.errors import ConfigError
from taskgrid.sentences import pydantic_sentences

_PATTERNS = {
    NAME_PATTERN: (
        "use lower-case letters, digits, '_', '-' and '.', beginning with a letter or digit"
    )
}


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration.

    Raises:
        ConfigError: if a key is unknown or a value does not fit; one sentence per mistake, each
            with the key, the value and what is allowed.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        sentences = pydantic_sentences(error, Config, patterns=_PATTERNS)
        raise ConfigError("\n".join(f"config: {sentence}" for sentence in sentences)) from None


def read_config(*paths: str | Path, values: Mapping[str, Any] | None = None) -> Config:
    """Read configuration files, each one laid over those before it, and validate the result.

    A file may begin with ``extends``: files (relative to itself) that are laid below it.

    Args:
        *paths: the files, from bottom to top.
        values: single values that are laid over all files.

    Raises:
        ConfigError: if a file is missing, is not YAML, extends itself, or the result is not valid.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge_overlay(merged, _layers(Path(path), ()))
    return parse_config(merge_overlay(merged, values or {}))


def _layers(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return what a file holds, with what it extends below it."""
    if path.resolve() in above:
        raise ConfigError(f"config file {path} extends itself; take it out of `extends`")
    raw = _mapping(path)
    below = raw.pop("extends", [])
    if not isinstance(below, list) or not all(isinstance(name, str) for name in below):
        raise ConfigError(f"config file {path}: extends must be a list of files")
    merged: dict[str, Any] = {}
    for name in below:
        lower = _layers(path.parent / name, (*above, path.resolve()))
        merged = merge_overlay(merged, lower)
    return merge_overlay(merged, raw)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"config file {path} must hold a mapping (key: value)")
    return raw


def merge_overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another as Snakemake does: mappings merge, all else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge_overlay(merged[key], value)
        else:
            merged[key] = value
    return merged
