"""One voice for messages: a wrong name, and what pydantic found, as sentences for people."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")

_TYPE_WORDS = {
    "bool_type": "true or false",
    "dataclass_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "string_type": "text",
    "tuple_type": "a list",
}
_ALTERNATIVES = ("str", "int", "float", "bool", "none")
_LONGEST = 80
_LONGEST_PATH = 120
_LONGEST_LIST = 160
_LONGEST_MESSAGE = 290
_HIDDEN = "***"

# What gives a secret away, in small letters, and its pattern; letters are looked for first, as patterns
# without a fixed beginning are slow. No i is among them: a pattern takes a dotless one for it, small
# letters do not. The first is greedy up to the last @, for a password may hold one; an address of a file
# has no user. No pattern looks further than a step or two from where it begins: texts may be long.
_SECRETS = (
    (("://",), re.compile(r"(://)(?!/)\S{0,500}(?=@)")),
    (
        ("passw", "passphrase", "pwd", "secret", "token", "key", "gnature", "credent"),
        re.compile(
            r"""((?:passw(?:or)?d|passphrase|pwd|secret|token|api_?key|access_?key|signature|credential)s?
            ["']?\s*[=:]\s*["']?)[^\s"'&;,)}\]]+""",
            re.IGNORECASE | re.VERBOSE,
        ),
    ),
    (
        ("=",),
        re.compile(
            r"""([?&;](?:[\w.-]*[-_])?(?:key|sig|auth|code|pass|pw)=)[^\s&;#"']+""", re.IGNORECASE
        ),
    ),
    (("bearer", "hf_"), re.compile(r"(\bBearer\s+|\bhf_)[\w.~+/=-]{12,}", re.IGNORECASE)),
)


def without_secrets(text: str) -> str:
    """Return a text with ``***`` for passwords and tokens.

    Those of addresses (``https://user:password@host``, ``?token=...``), those that stand behind their
    name (``password: ...``, ``api_key=...``), and what is told from its looks.
    """
    folded = text.casefold()
    for signs, pattern in _SECRETS:
        if any(sign in folded for sign in signs):
            text = pattern.sub(rf"\1{_HIDDEN}", text)
    return text


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return ``"did you mean 'x'? "`` for the closest known names, at most so many, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=most)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


def choices(name: str, known: Collection[str], lead: str = "there are") -> str:
    """Return ``"did you mean 'x'? there are: x, y"``, without the question where no name is close."""
    return f"{did_you_mean(name, known)}{lead}: {listed(known)}"


def listed(names: Collection[str]) -> str:
    """Return names with commas between them; of a long list the beginning, and how many more."""
    lengths = itertools.accumulate(len(name) + 2 for name in names)
    count = max(1, sum(length <= _LONGEST_LIST for length in lengths))
    more = [f"and {len(names) - count} more"] if count < len(names) else []
    return ", ".join([*itertools.islice(names, count), *more]) or "none"


def shown(value: Any, *, quotes: bool = True) -> str:
    """Return a value as a message shows it: of a long one the beginning; text in quotes or bare."""
    # First: cut off behind a password, an address no longer looks like one.
    text = without_secrets(repr(value))
    text = text[1:-1] if isinstance(value, str) and not quotes else text
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def tail(text: str) -> str:
    """Return a path or a place as a message shows it: of a long one the end, which tells it apart."""
    text = without_secrets(repr(text)[1:-1])
    return text if len(text) <= _LONGEST_PATH else f"...{text[3 - _LONGEST_PATH :]}"


def together(sentences: Sequence[str]) -> str:
    """Return sentences a line each, as many as a person reads; how many more there are, at the end."""
    first, *others = (
        one if len(one) <= _LONGEST_MESSAGE else f"{one[: _LONGEST_MESSAGE - 3]}..."
        for one in map(without_secrets, sentences)
    )
    lines, length = [first], len(first)
    for sentence in others:
        length += len(sentence) + 1
        if length > _LONGEST_MESSAGE - 20:
            break
        lines.append(sentence)
    hidden = len(sentences) - len(lines)
    return "\n".join([*lines, *([f"and {hidden} more"] if hidden else [])])


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """Return ``"unknown WHAT 'z'; did you mean 'x'? there are: x, y"``."""
    return f"unknown {what} {shown(name)}; {choices(name, known)}"


def key_path(location: Sequence[int | str]) -> str:
    """Return a place in nested values as a person writes it: ``grid.lambdas[1]``."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            key = shown(step, quotes=False)
            text += f".{key}" if text else key
    return text


def pydantic_sentences(
    error: ValidationError,
    model: type[Any] | None = None,
    *,
    values: Any = None,
    within: str = "",
    beside: Collection[str] = (),
    hidden: Collection[str] = (),
    patterns: Mapping[str, str] | None = None,
) -> list[str]:
    """Say what pydantic found: one sentence per mistake, with the key, the value and what is allowed.

    Args:
        error: what it raised.
        model: what it validated by, a model or a dataclass; its keys are then listed where one is
            unknown.
        values: what it validated, if a person may have any names there.
        within: the key below which the values stand, such as ``options``.
        beside: keys that may stand there too, but were taken out before.
        hidden: fields that nobody writes, so that no list offers them.
        patterns: regular expression -> what to say instead of it.
    """
    problems = error.errors(include_url=False)
    # A misspelt key is also a missing one: first say what was written.
    problems.sort(key=lambda problem: problem["type"] not in _UNKNOWN_KEY)
    # A union reports each alternative that failed: say them in one sentence.
    types: dict[str, list[str]] = {}
    for problem in problems:
        if problem["type"] in _TYPE_WORDS:
            key = key_path(_place(problem["loc"], model, values))
            types.setdefault(key, []).append(_TYPE_WORDS[problem["type"]])
    sentences = []
    for problem in problems:
        place = _place(problem["loc"], model, values)
        key = key_path([within, *place] if within else place)
        if problem["type"] in _UNKNOWN_KEY:
            sections = _sections_at(model, place[:-1])
            fields = dict.fromkeys(name for section in sections for name in _fields(section))
            taken = beside if len(place) == 1 else ()
            keys = [name for name in (*taken, *fields) if name not in hidden]
            hint = choices(str(place[-1]), keys, "allowed here") if keys else "remove it"
            sentences.append(f"unknown key {key!r}; {hint}")
        else:
            sentences.append(_sentence(problem, key, types.get(key_path(place)), patterns or {}))
    return list(dict.fromkeys(sentences))


def pydantic_sentence(
    error: ValidationError, model: type[Any] | None = None, **details: Any
) -> str:
    """Return the first of ``pydantic_sentences``."""
    return pydantic_sentences(error, model, **details)[0]


def _sentence(
    problem: ErrorDetails, key: str, types: Sequence[str] | None, patterns: Mapping[str, str]
) -> str:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "missing":
        return f"{key} is missing"
    if types is not None and kind in _TYPE_WORDS:
        text = f"the text {shown(value)}" if isinstance(value, str) else shown(value)
        quotes = "; put it in quotes" if types == ["text"] and isinstance(value, int) else ""
        return f"{key} is {text}, but must be {' or '.join(dict.fromkeys(types))}{quotes}"
    if kind in ("literal_error", "union_tag_invalid"):
        allowed = context.get("expected") or context.get("expected_tags") or problem["msg"]
        return f"{key} is {shown(value)}; allowed: {allowed}"
    if kind == "value_error":
        message = str(context["error"])
        given = f" is {shown(value)}" if isinstance(value, str | int | float | None) else ""
        if value == {} or (
            isinstance(value, list) and not any(repr(one) in message for one in value)
        ):
            message += f"; it is {shown(value)}"
        return f"{key}{given}: {message}" if key else message
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"{key} is {shown(value)}; {patterns.get(pattern, f'it must match {pattern}')}"
    return f"{key} is {shown(value)}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _place(
    location: Sequence[int | str], model: type[Any] | None, values: Any
) -> tuple[int | str, ...]:
    """Return the person's own keys: pydantic names also the alternative of a union, as a step."""
    place: list[int | str] = []
    for step in location:
        there = isinstance(values, Mapping) and step in values
        if isinstance(step, str) and not there:
            names = {section.__name__ for section in _sections_at(model, place)}
            if step in _ALTERNATIVES or step in names or "[" in step or "constrained-" in step:
                continue
        place.append(step)
        there = there or (isinstance(values, list) and isinstance(step, int))
        values = values[step] if there else None
    return tuple(place)


def _sections_at(model: type[Any] | None, place: Sequence[int | str]) -> list[type[Any]]:
    """Return the models and dataclasses that may stand at a place below a model."""
    sections = list(_sections(model))
    for step in place:
        below = [_fields(section)[step] for section in sections if step in _fields(section)]
        # A step that is no field is the number or the key of an item: its keys are its section's.
        if below:
            sections = [found for field in below for found in _sections(field.annotation)]
    return sections


def _sections(annotation: Any) -> Iterator[type[Any]]:
    if isinstance(annotation, type) and _fields(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _fields(section: type[Any]) -> Mapping[Any, Any]:
    fields = getattr(section, "model_fields", None) or getattr(section, "__pydantic_fields__", None)
    found = fields if isinstance(fields, dict) else {}
    # A key that is a word of Python, such as `from`, is the alias of its field.
    return {field.alias or name: field for name, field in found.items()}
