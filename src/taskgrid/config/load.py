"""Reading a configuration: from files or mappings, with one sentence per mistake."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from taskgrid.config.schema import Config
from taskgrid.errors import ConfigError

_TYPE_WORDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping (key: value)",
    "string_type": "text",
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
        sentences = dict.fromkeys(_sentences(error))
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


def _sentences(error: ValidationError) -> list[str]:
    problems = error.errors(include_url=False)
    # A union reports each alternative that failed: say them in one sentence.
    words: dict[str, list[str]] = {}
    for problem in problems:
        if problem["type"] in _TYPE_WORDS:
            words.setdefault(_key(_place(problem["loc"])), []).append(_TYPE_WORDS[problem["type"]])
    return [_sentence(problem, words) for problem in problems]


def _place(location: Sequence[int | str]) -> tuple[int | str, ...]:
    # pydantic names the alternative of a union as a step of the path; keep the person's own keys.
    return tuple(
        step
        for step in location
        if isinstance(step, int)
        or (step.isidentifier() and step not in ("str", "int", "float", "bool"))
    )


def _key(place: Sequence[int | str]) -> str:
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _sentence(problem: Mapping[str, Any], words: Mapping[str, Sequence[str]]) -> str:
    place, value = _place(problem["loc"]), problem.get("input")
    key, kind = _key(place), problem["type"]
    if kind == "extra_forbidden":
        allowed = _allowed(place[:-1])
        close = difflib.get_close_matches(str(place[-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}; {hint}allowed here: {', '.join(allowed)}"
    if kind == "missing":
        return f"{key} is missing"
    if kind in _TYPE_WORDS:
        shown = f"the text {value!r}" if isinstance(value, str) else repr(value)
        return f"{key} is {shown}, but must be {' or '.join(words[key])}"
    if kind in ("literal_error", "union_tag_invalid"):
        return f"{key} is {value!r}; allowed: {problem['ctx'].get('expected') or problem['msg']}"
    if kind == "value_error":
        message = str(problem["ctx"]["error"])
        shown = f" is {value!r}" if isinstance(value, str | int | float) else ""
        return f"{key}{shown}: {message}" if key else message
    if kind == "string_pattern_mismatch":
        return (
            f"{key} is {value!r}; use lower-case letters, digits, '_', '-' and '.', "
            "beginning with a letter or digit"
        )
    return f"{key} is {value!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _allowed(place: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] = Config
    for step in place:
        if isinstance(step, str):
            found = _section_of(section.model_fields[step].annotation)
            if found is None:
                return []
            section = found
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, UnionType) or get_args(annotation):
        for argument in get_args(annotation):
            found = _section_of(argument)
            if found is not None:
                return found
    return None
