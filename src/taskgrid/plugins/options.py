"""Options of plug-ins: declared on the card, checked value by value, one sentence per mistake."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from taskgrid.errors import ConfigError
from taskgrid.sentences import choices, shown

OptionKind = Literal[
    "number", "integer", "flag", "text", "numbers", "series", "names", "lists", "options"
]
"""``numbers`` maps names (of tasks, say) to numbers; ``series`` is a list of numbers, ``names`` one of
texts, ``lists`` a list of such lists; ``options`` are those of another plug-in."""

_WORDS: Mapping[OptionKind, str] = {
    "number": "a number",
    "integer": "a whole number",
    "flag": "true or false",
    "text": "text",
    "numbers": "a mapping from names to numbers",
    "series": "a list of numbers",
    "names": "a list of names",
    "lists": "a list of lists of names",
    "options": "a mapping from options to values",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What numbers may be.

    Attributes:
        least: the smallest value.
        most: the largest value.
        above: values are larger than this.
        below: values are smaller than this.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def broken_by(self, number: float) -> str:
        """Return the limit that a number breaks, in words; empty where it breaks none."""
        for limit, holds, words in (
            (self.least, operator.ge, "at least"),
            (self.most, operator.le, "at most"),
            (self.above, operator.gt, "more than"),
            (self.below, operator.lt, "less than"),
        ):
            if limit is not None and not holds(number, limit):
                return f"{words} {limit:g}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Rule(Limits):
    """What options of a plug-in must keep together: a sum of them lies within limits.

    Attributes:
        plus: options that are added.
        minus: options that are subtracted.
        when: the values of other options with which it must be kept; empty if always.
        about: what the sum is, in a few words.
    """

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict)
    about: str

    def check(self, options: Mapping[str, Any]) -> None:
        """Check options.

        Raises:
            ValueError: if they do not fit together.
        """
        if any(options[name] != value for name, value in self.when.items()):
            return
        total = sum(options[name] for name in self.plus) - sum(options[n] for n in self.minus)
        # 0.7 + 0.2 + 0.1 is less than 1.
        if words := self.broken_by(round(total, 9)):
            formula = " - ".join([" + ".join(self.plus), *self.minus])
            asked = "".join(f" with `{name}: {value}`" for name, value in self.when.items())
            raise ValueError(
                f"{formula} is {total:.6g}, but it must be {words}{asked}: it is {self.about}"
            )


@dataclass(frozen=True, kw_only=True)
class Option(Limits):
    """An option of a plug-in.

    Attributes:
        default: its value where none is given; where that is None, null may be given too.
        about: what it does, in a few words.
        kind: what values look like; None where the default shows it.
        choices: the values there are, the paper's first; empty where a range says it.
        words: what may be said in place of a value.
        counts_tasks: whether it is a number of merged tasks; more than any subset has are refused.
        divided_if: values of other options with which its numbers, by task, are divided by their sum over a
            subset, which must not be zero then; None where they never are.
        origin: where the default comes from.
    """

    default: Any
    about: str
    kind: OptionKind | None = None
    choices: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()
    counts_tasks: bool = False
    divided_if: Mapping[str, Any] | None = None
    origin: str = ""

    @property
    def shape(self) -> OptionKind:
        """What values look like."""
        if self.kind is not None:
            return self.kind
        shapes: dict[type, OptionKind] = {bool: "flag", int: "integer", float: "number"}
        return shapes.get(type(self.default), "text")

    def divided(self, options: Mapping[str, Any]) -> bool:
        """Return whether its numbers are divided by their sum with these options, all of them."""
        asked = self.divided_if
        return asked is not None and all(options[name] == one for name, one in asked.items())

    def read(self, value: Any) -> Any:
        """Return a value in its canonical form.

        Raises:
            ValueError: if it cannot be; the text says what can.
        """
        if (value is None and self.default is None) or (
            isinstance(value, str) and value in self.words
        ):
            return value
        found = _read(self.shape, value, *self.words)
        if self.choices and found not in self.choices:
            raise ValueError(f"allowed: {', '.join(map(str, self.choices))}")
        for number in _numbers(found):
            if words := self.broken_by(number):
                raise ValueError(f"it must be {words}")
        return found


class Options(Mapping[str, Any]):
    """The options of one use of a plug-in: every one has a value, none ever changes.

    Values are read as attributes, ``options.density``. As a mapping it is the canonical form, that of
    keys and tables: every option, also those left at their defaults.
    """

    _values: dict[str, Any]

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "_values", dict(values or {}))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"there is no option {name!r}")
        return self._values[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("options do not change")

    def __repr__(self) -> str:
        return f"Options({dict(self)!r})"


def read_options(
    owner: str,
    declared: Mapping[str, Option],
    values: Mapping[str, Any],
    rules: Sequence[Rule] = (),
) -> Options:
    """Check the options of a plug-in and fill in the defaults.

    Args:
        owner: what the messages call the plug-in, e.g. ``merge method 'ties'``.
        declared: the options on its card.
        values: option -> value.
        rules: what they must keep together.

    Raises:
        ConfigError: if an option is unknown, a value does not fit, or values do not fit together.
    """
    for name in values:
        if name not in declared:
            hint = choices(name, declared, "its options")
            raise ConfigError(f"{owner} has no option {shown(name)}; {hint}")
    found = {}
    for name, option in declared.items():
        try:
            found[name] = option.read(values[name]) if name in values else option.default
        except ValueError as error:
            raise ConfigError(
                f"option {name!r} of {owner} is {shown(values[name])}: {error}"
            ) from None
    for rule in rules:
        try:
            rule.check(found)
        except ValueError as error:
            raise ConfigError(f"options of {owner} do not fit together: {error}") from None
    return Options(found)


def _read(kind: OptionKind, value: Any, *words: str) -> Any:
    number = (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    )
    if kind == "number" and number:
        return float(value)
    if kind == "integer" and number and value == int(value):
        return int(value)
    if kind == "flag" and isinstance(value, bool):
        return value
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "numbers" and isinstance(value, Mapping):
        return {str(name): _item("number", one) for name, one in sorted(value.items(), key=str)}
    if kind == "options" and isinstance(value, Mapping):
        return {str(name): one for name, one in sorted(value.items(), key=str)}
    if kind == "series" and isinstance(value, list | tuple):
        return [_item("number", one) for one in value]
    if kind == "names" and isinstance(value, list | tuple):
        return [_item("text", one) for one in value]
    if kind == "lists" and isinstance(value, list | tuple):
        return [_item("names", one) for one in value]
    raise ValueError(f"it must be {' or '.join((_WORDS[kind], *words))}")


def _item(kind: OptionKind, value: Any) -> Any:
    try:
        return _read(kind, value)
    except ValueError as error:
        raise ValueError(f"{shown(value)} in it: {error}") from None


def _numbers(found: Any) -> list[Any]:
    if isinstance(found, dict):
        return [*found.values()]
    return found if isinstance(found, list) else [found]
