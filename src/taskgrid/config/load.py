"""Reading a configuration: from files or mappings, with one sentence per mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taskgrid.config.reading import plain, read_text, read_yaml
from taskgrid.config.root import Config
from taskgrid.config.sections.values import NAME_PATTERN
from taskgrid.errors import ConfigError
from taskgrid.sentences import pydantic_sentences, shown, tail, together

_PATTERNS = {
    NAME_PATTERN: (
        "use lower-case letters, digits, '_', '-' and '.', beginning with a letter or digit"
    )
}

MOST_LAYERS = 16
"""Files that extend one another."""


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Validate a configuration.

    Raises:
        ConfigError: if a key is unknown or a value does not fit; one sentence per mistake, each
            with the key, the value and what is allowed.
    """
    values = plain(raw, "config")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        sentences = pydantic_sentences(error, Config, values=values, patterns=_PATTERNS)
        raise ConfigError(together([f"config: {one}" for one in sentences])) from None


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
    return parse_config(merge_overlay(merged, plain(values or {}, "config")))


def read_entries(entries: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` of a command line, as Snakemake takes them; the value is YAML.

    Raises:
        ConfigError: if a value is not YAML, or holds what `plain` refuses.
    """
    merged: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        value = read_text(text, f"config: --config {shown(key, quotes=False)}")
        merged = merge_overlay(merged, {key: value})
    return merged


def _layers(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return what a file holds, with what it extends below it."""
    name = tail(str(path))
    if path.resolve() in above:
        raise ConfigError(f"config file {name} extends itself; take it out of `extends`")
    if len(above) > MOST_LAYERS:
        raise ConfigError(
            f"config file {name} is one of more than {MOST_LAYERS} that extend each other; join some"
        )
    raw = read_yaml(path)
    below = raw.pop("extends", [])
    if not isinstance(below, list) or not all(isinstance(lower, str) for lower in below):
        raise ConfigError(
            f"config file {name}: extends is {shown(below)}, but must be a list of files"
        )
    merged: dict[str, Any] = {}
    for lower in below:
        merged = merge_overlay(merged, _layers(path.parent / lower, (*above, path.resolve())))
    return merge_overlay(merged, raw)


def merge_overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another as Snakemake does: mappings merge, all else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge_overlay(merged[key], value)
        else:
            merged[key] = value
    return merged
