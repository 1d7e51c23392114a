"""Class names and prompt templates: given inline, in a file, or by the source itself."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import DataError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""CLIP's own prompt (Radford et al. 2021, section 3.1.4), when a task names none."""

_SUFFIXES = (".json", ".txt")
_INVISIBLE = " \t\n\r\v\f\u00a0\u200b\ufeff"


def resolve_classes(
    task: TaskData,
    own: Sequence[str] | None = None,
    labels: int | None = None,
    beside: Path | None = None,
    *,
    alphabetical: bool = False,
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
        alphabetical: whether the order of ``own`` is no more than that of its letters, so that a
            person's list may well be in another one.

    Raises:
        DataError: if there are no names, their number differs from the classes, two are alike, a list
            of them may be in another order than the source's, or a file of them is missing or
            malformed.
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
    if own is not None and not isinstance(given, Mapping):
        _check_order(names, own, where, alphabetical=alphabetical)
    return _clean(names, where)


def plain(name: str) -> str:
    """Return a name as it is compared: accents composed, no byte-order mark, no blanks at its ends."""
    return unicodedata.normalize("NFC", name).strip(_INVISIBLE)


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
        # Some editors begin a file with a byte-order mark.
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return [plain(line) for line in text.rstrip().split("\n")]
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    texts = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else [None]
    )
    if not all(isinstance(item, str) for item in texts):
        raise DataError(f"{path} must hold a list of texts, or an object with a text per name")
    parsed: list[str] | dict[str, str] = value
    return parsed


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {plain(key): value for key, value in pairs}
    if len(found) != len(pairs):
        names = [plain(key) for key, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {repeated!r} stands twice")
    return found


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


def _check_order(
    names: Sequence[str], own: Sequence[str], where: str, *, alphabetical: bool
) -> None:
    """Refuse a list in label order that a person may have written in another order."""
    example = f"{{{json.dumps(own[0], ensure_ascii=False)}: ...}}"
    ask = f"give a .json file that maps each of the source's names to yours ({example})"
    places = {_loosely(name): label for label, name in enumerate(own)}
    for label, name in enumerate(names):
        if places.get(_loosely(name), label) != label:
            raise DataError(
                f"{where} calls the class {own[label]!r} of the source {name!r}, which is the "
                f"source's name of another class; {ask}, or leave `classes` out"
            )
    counted = _counted(own) if alphabetical else own
    moved = [pair for pair in zip(own, counted, strict=True) if pair[0] != pair[1]]
    if moved:
        raise DataError(
            f"{where} is a list, but the order of the source's classes is not clear: {moved[0][0]!r} "
            f"comes before {moved[0][1]!r} by letters and after it by number or without case; {ask}"
        )


def _loosely(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", plain(name)).casefold()


def _counted(names: Sequence[str]) -> Sequence[str]:
    """Sort names as a person counts: by the numbers in them, without case."""
    if all(re.fullmatch(r"[-+]?\d+(\.\d+)?", name, re.ASCII) for name in names):
        return sorted(names, key=float)
    return sorted(names, key=_as_counted)


def _as_counted(name: str) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _clean(names: Sequence[str], where: str) -> tuple[str, ...]:
    found = tuple(map(plain, names))
    seen: dict[str, str] = {}
    for label, name in enumerate(found):
        if not name:
            raise DataError(f"{where} has an empty name for class {label}")
        # CLIP reads text in lower case, with runs of blanks as one.
        alike = " ".join(name.casefold().split())
        if alike in seen:
            raise DataError(
                f"{where} has two classes called {name!r}"
                f"{'' if seen[alike] == name else f' and {seen[alike]!r}'}, which CLIP reads alike, so "
                "that one could never win; give each a name of its own"
            )
        seen[alike] = name
    if len(names) < 2:
        raise DataError(
            f"{where} has {len(names)} class{'' if len(names) == 1 else 'es'}"
            f"{f' ({names[0]!r})' if names else ''}; a classification task needs at least two"
        )
    return found
