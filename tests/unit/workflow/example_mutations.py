"""Mistakes in configurations, drawn at random: in their values, and in the text of their files."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from taskgrid.config import Experiment, parse_config, read_config
from taskgrid.errors import TaskgridError
from taskgrid.workflow import stages
from taskgrid.workflow.project import DEFAULT, ROOT

FILES = (
    DEFAULT,
    *(
        ROOT / "presets" / f"{name}.yaml"
        for name in ("questions", "clip-vit-b-32-8tasks-hub", "clip-vit-b-16-20tasks-smoke")
    ),
)

ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x", "1e-5", "0.3", "\0", "a\nb", "../..", "~nobody/x", "x" * 5000),
    *(0, 1, -1, 2, 7, 10**30, 10**400, -(10**18), 2**63),
    *(0.0, 0.5, -0.5, 1e-30, 1e308, 0.123456789, math.inf, -math.inf, math.nan),
    *([], {}, [[]], [None], [0.3, 0.3], ["x"], ["x", "x"], [{}], list(range(5000)), b"x"),
    *({"foo-bar": 1}, {"": 1}, {1: 2}, {None: 3}, {"name": "x"}),
    {"start": 0, "stop": 1, "step": 1e-9},
)
KEYS: tuple[Any, ...] = (
    "foo-bar",
    "",
    "a b",
    "str",
    "x[0]",
    "x.y",
    "\0",
    "é",
    "x" * 5000,
    1,
    None,
    True,
)
CHARACTERS = "\t\0\ufeff:{}[]&*!|>'\"%@`#-,? \n<0x"

SECONDS = 2.0

Place: TypeAlias = tuple[int | str, ...]


@dataclass(frozen=True)
class Mutation:
    """A configuration that was changed, by a mistake or into another good one.

    Attributes:
        config: the whole configuration.
        place: the keys that lead to the change.
        value: the new value.
        changed: whether the value of a key was changed; else a key was removed, renamed or added.
    """

    config: dict[str, Any] = field(repr=False)
    place: Place
    value: Any
    changed: bool


def bounded(count: int) -> settings:
    """Try so many, and leave nothing in the working folder."""
    return settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))


def refusal(*files: Path, values: Any = None) -> str:
    """Do what the Snakefile does first; return why it stops there, or nothing."""
    began = time.process_time()
    try:
        experiment = Experiment(read_config(*files) if files else parse_config(values))
        experiment.check()
        stages.studies.check(experiment)
        stages.figures.names(experiment)
    except TaskgridError as error:
        return str(error)
    finally:
        assert time.process_time() - began < SECONDS
    return ""


@cache
def whole(file: Path) -> dict[str, Any]:
    """Return the configuration of a file, with every key."""
    files = [DEFAULT, file] if file != DEFAULT else [file]
    return read_config(*files).model_dump(by_alias=True)


def _below(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Yield the keys that lead to each value."""
    yield above
    for key, below in _below(value):
        yield from _places(below, (*above, key))


def _at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def _plain(value: Any) -> Any:
    """Return a copy that can be changed everywhere."""
    if isinstance(value, dict):
        return {key: _plain(below) for key, below in value.items()}
    return [*map(_plain, value)] if isinstance(value, list | tuple) else value


@st.composite
def mutations(draw: st.DrawFn, file: Path) -> Mutation:
    """Change one value, or remove, rename or add a key."""
    config = _plain(whole(file))
    places = list(_places(config))
    *above, last = draw(st.sampled_from(places[1:]))
    parent = _at(config, tuple(above))
    value = copy.deepcopy(draw(st.sampled_from(ODD)))
    kind = draw(st.sampled_from(("change", "change", "change", "remove", "rename", "add")))
    if isinstance(parent, list) and kind != "change":
        parent.append(copy.deepcopy(parent[last]))
        return Mutation(config, tuple(above), parent, changed=False)
    if kind == "change":
        parent[last] = value
        return Mutation(config, (*above, last), value, changed=True)
    key = draw(st.sampled_from(KEYS)) if kind == "add" else f"{last}x"
    if kind != "add":
        value = parent.pop(last)
    if kind != "remove":
        parent[key] = value
    return Mutation(config, (*above, last if kind == "remove" else key), value, changed=False)


@st.composite
def texts(draw: st.DrawFn, file: Path) -> bytes:
    """Spoil the text of a file: characters, lines, bytes."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    line = lines[at]
    kind = draw(st.sampled_from(("character", "repeat", "indent", "remove", "byte", "cut")))
    if kind == "character":
        column = draw(st.integers(0, len(line)))
        lines[at] = line[:column] + draw(st.sampled_from(CHARACTERS)) + line[column:]
    elif kind == "repeat":
        lines.insert(draw(st.integers(0, len(lines))), line)
    elif kind == "indent":
        lines[at] = draw(st.sampled_from((" ", "    ", "\t"))) + line
    elif kind == "remove":
        del lines[at]
    elif kind == "cut":
        lines = [*lines[:at], line[: len(line) // 2]]
    spoilt = "\n".join(lines).encode()
    if kind == "byte":
        place = draw(st.integers(0, len(spoilt)))
        spoilt = spoilt[:place] + draw(st.sampled_from((b"\xff", b"\x80", b"\0"))) + spoilt[place:]
    return spoilt
