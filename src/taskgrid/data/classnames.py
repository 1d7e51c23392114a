"""Class names and prompt templates: given inline, in a file, or by the source itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import DataError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""CLIP's own prompt (Radford et al. 2021, section 3.1.4), when a task names none."""

_SUFFIXES = (".json", ".txt")


def resolve_classes(
    task: TaskData,
    own: Sequence[str] | None = None,
    labels: int | None = None,
    beside: Path | None = None,
) -> tuple[str, ...]:
    """Return a task's class names in label order.

    ``task.classes`` wins: a list (inline, ``.json``, or ``.txt`` with one name per line) in label
    order, or a ``.json`` object that maps the source's own name of each class to a better one (or,
    where the source has none, each label to a name). Without it, the source's own names serve, then
    the file ``beside`` the data.

    Args:
        task: the task.
        own: the source's names in label order: folder names, ClassLabel names.
        labels: number of classes that the labels imply, for a source without names.
        beside: a file of class names that lies with the data; need not exist.

    Raises:
        DataError: if there are no names, their number differs from the classes, or a file of them
            is missing or malformed.
    """
    if task.classes is not None:
        given, where = _read("classes", task.classes, beside)
    elif own is not None:
        return _clean(own, "the source")
    elif beside is not None and beside.is_file():
        given, where = _parse("classes", beside), str(beside)
    else:
        raise DataError(
            "its source names no classes; list them in `classes`, or name a "
            ".json or .txt file of them there"
        )
    names = _by_name(given, own, where) if isinstance(given, Mapping) else given
    expected = len(own) if own is not None else labels
    if expected is not None and len(names) != expected:
        what = "the source has" if own is not None else "the labels imply"
        raise DataError(
            f"{where} has {len(names)} class names, but {what} {expected} "
            "classes; give one name per class, in label order"
        )
    return _clean(names, where)


def resolve_templates(
    task: TaskData, default: Sequence[str] = DEFAULT_TEMPLATES
) -> tuple[str, ...]:
    """Return a task's prompt templates, each with exactly one ``{}`` for the class name.

    Raises:
        DataError: if there are none, one lacks its ``{}``, or a file of them is missing.
    """
    given: Sequence[str] | Mapping[str, str] = default
    where = "templates"
    if task.templates is not None:
        given, where = _read("templates", task.templates, None)
    if isinstance(given, Mapping) or not given:
        raise DataError(f"{where} must be a list with at least one template")
    for template in given:
        if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
            raise DataError(
                f"the template {template!r} must contain {{}} exactly once, "
                "where the class name goes, and no other brace"
            )
    return tuple(given)


def _read(
    key: str, value: Sequence[str] | str, beside: Path | None
) -> tuple[Sequence[str] | Mapping[str, str], str]:
    if not isinstance(value, str):
        return list(value), f"`{key}`"
    tried = [Path(value).expanduser()]
    if beside is not None and not tried[0].is_absolute():
        tried.append(beside.parent / value)
    for path in tried:
        if path.is_file():
            return _parse(key, path), str(path)
    raise DataError(
        f"the file of {key} {' or '.join(map(str, tried))} does not exist; "
        "correct the path, or write a list"
    )


def _parse(key: str, path: Path) -> Sequence[str] | Mapping[str, str]:
    if path.suffix not in _SUFFIXES:
        raise DataError(f"{path} must be a {' or '.join(_SUFFIXES)} file to list {key}")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            return [line.strip() for line in text.rstrip().splitlines()]
        value = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    texts = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else [None]
    )
    if not all(isinstance(item, str) for item in texts):
        raise DataError(f"{path} must hold a list of texts, or an object with a text per name")
    parsed: list[str] | dict[str, str] = value
    return parsed


def _by_name(given: Mapping[str, str], own: Sequence[str] | None, where: str) -> Sequence[str]:
    keys = own if own is not None else [str(label) for label in range(len(given))]
    kind = "classes of the source" if own is not None else "labels"
    missing = [key for key in keys if key not in given]
    unknown = [key for key in given if key not in keys]
    if missing or unknown:
        parts = [f"lacks {', '.join(map(repr, missing[:5]))}"] if missing else []
        parts += (
            [f"names {', '.join(map(repr, unknown[:5]))}, which do not exist"] if unknown else []
        )
        raise DataError(
            f"{where} has {len(given)} class names for {len(keys)} {kind}: it {' and '.join(parts)}"
        )
    return [given[key] for key in keys]


def _clean(names: Sequence[str], where: str) -> tuple[str, ...]:
    for label, name in enumerate(names):
        if not name.strip():
            raise DataError(f"{where} has an empty name for class {label}")
    if len(names) < 2:
        raise DataError(
            f"{where} has {len(names)} class{'' if len(names) == 1 else 'es'}"
            f"{f' ({names[0]!r})' if names else ''}; a classification task needs at least two"
        )
    return tuple(names)
