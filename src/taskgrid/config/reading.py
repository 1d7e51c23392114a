"""Text and foreign mappings as plain values: nothing is repeated, hidden, deep or without end."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from taskgrid.errors import ConfigError
from taskgrid.sentences import key_path, shown, tail

LARGEST_FILE = 1 << 24
"""Bytes of a configuration file; more is none."""
MOST_VALUES = 1 << 17
"""Values of a configuration; what an alias repeats counts each time."""
DEEPEST = 32
LARGEST_NUMBER = 1e15
"""Exact as a float, and the product of two is still a number of single precision."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_DIGIT = re.compile(r"[1-9]")
_FLOATS = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_TRUE = ("true", "yes", "on")
_TAG = "tag:yaml.org,2002:"
_DIGITS = 400

Place: TypeAlias = tuple[int | str, ...]


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a file holds.

    Raises:
        ConfigError: if the file cannot be read, is not YAML, or holds what ``plain`` refuses.
    """
    source = f"config file {tail(str(path))}"
    try:
        # Of a pipe or a device the end may never come.
        if path.exists() and not path.is_file():
            raise ConfigError(f"{source} is no file; give the path of a YAML file")
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise ConfigError(f"{source} is larger than {LARGEST_FILE >> 20} MB; thin it")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{source} is not UTF-8 (line {line}); save it in UTF-8") from None
    found = read_text(text, source)
    if not isinstance(found, dict):
        raise ConfigError(f"{source} must hold a mapping (key: value)")
    return found


def read_text(text: str, source: str) -> Any:
    """Return the plain values that YAML text stands for.

    Args:
        text: the text.
        source: where it is from, for messages.

    Raises:
        ConfigError: if it is not YAML, or holds what ``plain`` refuses.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        return None if node is None else plain(node, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigError(f"{source} is not YAML{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(
            f"{source} is nested more than {DEEPEST} deep; write it flatter"
        ) from None


def plain(value: Any, source: str) -> Any:
    """Return mappings, lists, texts, numbers, true, false and null as Python's own, copied.

    Args:
        value: what stands for them: nodes of YAML, or mappings and sequences of any class.
        source: where it is from, for messages.

    Raises:
        ConfigError: if a key is no text or stands twice, a number is not finite or very large, a
            text holds control characters, something is of another type, or there are too many
            values, or they lie too deep (also because one holds itself).
    """
    return _Reader(source).read(value, ())


class _Reader:
    """Reads one tree of values.

    Args:
        source: where it is from, for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0

    def read(self, value: Any, place: Place) -> Any:
        self._counted()
        if len(place) > DEEPEST:
            raise ConfigError(
                f"{self._source}: {tail(key_path(place[:4]))} is nested more than {DEEPEST} deep; write "
                "it flatter"
            )
        if isinstance(value, yaml.MappingNode):
            value = self._mapping(value, place)
        elif isinstance(value, yaml.SequenceNode):
            value = value.value
        elif isinstance(value, yaml.ScalarNode):
            value = _scalar(value, self._where(place))
        if isinstance(value, Mapping):
            for key in value:
                problem = _problem(key) if isinstance(key, str) else "is no text; put it in quotes"
                if problem:
                    raise ConfigError(
                        f"{self._where(place)} has the key {shown(key)}, which {problem}"
                    )
            return {key: self.read(below, (*place, key)) for key, below in value.items()}
        if isinstance(value, list | tuple):
            return [self.read(below, (*place, index)) for index, below in enumerate(value)]
        if problem := _problem(value):
            raise ConfigError(f"{self._where(place)} is {shown(value)}, which {problem}")
        return value

    def _where(self, place: Place) -> str:
        return f"{self._source}: {tail(key_path(place))}" if place else self._source

    def _counted(self) -> None:
        self._count += 1
        if self._count > MOST_VALUES:
            raise ConfigError(
                f"{self._source} has more than {MOST_VALUES} values, aliases counted each time; thin it"
            )

    def _mapping(self, node: yaml.Node, place: Place) -> dict[Any, yaml.Node]:
        """Return a mapping's own values, over those that ``<<`` brings."""
        where = self._where(place)
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{where} has << before what is no mapping; name one")
        own: dict[Any, yaml.Node] = {}
        below: dict[Any, yaml.Node] = {}
        lines: dict[Any, int] = {}
        for key, value in node.value:
            self._counted()
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where} has a key that is no text (line {line}); write text")
            merges = key.tag == f"{_TAG}merge"
            name = key.value if merges else _scalar(key, f"a key of {where}")
            if name in lines:
                raise ConfigError(
                    f"{where} has the key {shown(name)} twice, in lines {lines[name]} and {line}; keep one"
                )
            lines[name] = line
            if merges:
                several = isinstance(value, yaml.SequenceNode)
                for other in value.value if several else [value]:
                    below = {**self._mapping(other, place), **below}
            else:
                own[name] = value
        return {**below, **own}


def _scalar(node: yaml.ScalarNode, where: str) -> Any:
    text, kind = node.value, node.tag.removeprefix(_TAG)
    lower = text.replace("_", "").lower()
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return lower in _TRUE
    if kind == "int" and _WHOLE.fullmatch(text):
        # Python reads no number of thousands of digits; such a one is refused for its size.
        return int(lower) if len(lower) < _DIGITS else math.inf
    if kind == "float" and ":" not in text:
        with contextlib.suppress(ValueError):
            found = _FLOATS[lower] if lower in _FLOATS else float(lower)
            if found or not _DIGIT.search(lower.partition("e")[0]):
                return found
            raise ConfigError(
                f"{where} is {shown(text, quotes=False)}, nearer to 0 than numbers are"
            )
    # YAML 1.1 reads 010 as eight, 1:30 as ninety and 2001-01-01 as a day.
    raise ConfigError(
        f"{where} is {shown(text, quotes=False)}, which YAML reads as {shown(kind, quotes=False)}; put it in "
        "quotes if it is text, write it in plain digits if it is a number"
    )


def _problem(value: Any) -> str:
    """Say what is wrong with a single value, and what to do; nothing where it is as it should be."""
    if isinstance(value, str):
        return "holds a control character; remove it" if _UNPRINTABLE.search(value) else ""
    if value is not None and not isinstance(value, bool | int | float):
        return "is neither text nor a number, true, false or null; put it in quotes"
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number; give one"
    if value is not None and abs(value) > LARGEST_NUMBER:
        return f"is beyond {LARGEST_NUMBER:g}; give a smaller number"
    return ""
