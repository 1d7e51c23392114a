"""Tables of results as people read them: words for names, percent for fractions, no digests."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from taskgrid.plots.frames import method_titles
from taskgrid.plots.style import label
from taskgrid.store.columns import COLUMNS

MOST = 1000
"""How many rows a page shows of a table."""

REFERENCES = {"zeroshot": "zero-shot", "expert": "experts, each on its own task"}

_HIDDEN = ("options", "key", "storage_mb")
_NAMES = {"subset", "tasks", "task", "partner", "control"}
_FROZEN = ("subset", "method", "task", "partner")
_FRACTION = re.compile(
    r"(.*_)?(accuracy|normalized)(_\w+)?|alone|together|change|difference|published|run"
)


@dataclass(frozen=True)
class Cell:
    """What is shown; ``key``, what is sorted by where it is not that; what stands small beside it."""

    text: str = ""
    key: str = ""
    beside: str = ""


@dataclass(frozen=True)
class Head:
    """The head of a column, and what the column is in words."""

    text: str
    about: str = ""
    number: bool = False


@dataclass(frozen=True)
class Row:
    """A row; of some tables rows are of several kinds, which look different."""

    cells: Sequence[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table as it is shown.

    Attributes:
        heads: the heads of its columns.
        rows: its rows, at most ``MOST``.
        frozen: how many columns stay in sight when the others move.
        said: what is the same in every row.
        total: how many rows the table has.
    """

    heads: Sequence[Head]
    rows: Sequence[Row]
    frozen: int = 1
    said: str = ""
    total: int = 0


def percent(value: Any, low: Any = None, high: Any = None, signed: bool = False) -> Cell:
    """Return a fraction in percent, with the ends of its interval beside it where there are any."""
    if pd.isna(value):
        return Cell()
    beside = "" if pd.isna(low) or pd.isna(high) else f"{100 * low:.1f} to {100 * high:.1f}"
    text = f"{100 * value:{'+' if signed else ''}z.1f}".replace("-", "−")
    return Cell(text, f"{value:.6f}", beside)


def sheet(table: pd.DataFrame, fractions: Collection[str] = ()) -> Sheet:
    """Return a table as it is shown.

    Empty columns are left out, and ``options`` where ``method`` says what is in them; what is the same
    in every row is said once; the ends of an interval stand beside the number.

    Args:
        table: the table.
        fractions: columns of fractions beside those whose names say it.
    """
    frame = _worded(table).dropna(axis="columns", how="all")
    hidden = {*_HIDDEN, *(("scale",) if "point" in frame else ())}
    names = [str(name) for name in frame if name not in hidden]
    said = {name: _plain(frame[name].iloc[0]).text for name in names if _is_same(frame[name])}
    names = [name for name in names if name not in said]
    first = [name for name in _FROZEN if name in names][:2] or names[:1]
    ordered = [*first, *(name for name in names if name not in first)]
    columns = list(_columns(frame.head(MOST), ordered, fractions))
    return Sheet(
        heads=[head for head, _ in columns],
        rows=[Row(cells) for cells in zip(*(cells for _, cells in columns), strict=True)],
        frozen=len(first),
        said="; ".join(f"{_words(name)}: {text}" for name, text in said.items() if text),
        total=len(frame),
    )


def head_of(name: str, text: str = "", number: bool = False) -> Head:
    """Return the head of a column that tables of results have, with its words."""
    about = COLUMNS[name].about.replace("`", "") if name in COLUMNS else ""
    return Head(text or _words(name), about, number)


def _worded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with words for the names of methods and tasks, and of chosen points the best on top."""
    frame = table.copy()
    if {"method", "options"} <= set(frame):
        titles = method_titles(frame) | {(name, "{}"): words for name, words in REFERENCES.items()}
        pairs = zip(frame["method"].astype(str), frame["options"].astype(str), strict=True)
        frame["method"] = [titles[pair] for pair in pairs]
    if {"subset", "tasks"} <= set(frame) and frame["subset"].equals(frame["tasks"]):
        frame = frame.drop(columns="tasks")
    for name in _NAMES & set(frame):
        frame[name] = [label(text).replace("+", " + ") for text in frame[name].fillna("")]
    if {"size", "test_accuracy"} <= set(frame):
        frame = frame.sort_values(["size", "test_accuracy"], ascending=False, kind="stable")
    return frame


def _columns(
    frame: pd.DataFrame, names: Sequence[str], fractions: Collection[str]
) -> Iterator[tuple[Head, list[Cell]]]:
    shares = [name for name in names if name in fractions or _FRACTION.fullmatch(name)]
    ends = {name: [f"{name}_low", f"{name}_high"] for name in shares}
    beside = {end for pair in ends.values() if set(pair) <= set(names) for end in pair}
    for name in (name for name in names if name not in beside):
        values = frame[name]
        number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if name in shares and number:
            low, high = (frame.get(end, pd.Series(index=frame.index)) for end in ends[name])
            cells = [percent(*each) for each in zip(values, low, high, strict=True)]
            yield head_of(name, f"{_words(name)} [%]", number), cells
        else:
            yield head_of(name, number=number), [_plain(value) for value in values]


def _plain(value: Any) -> Cell:
    if pd.isna(value):
        return Cell()
    if pd.api.types.is_bool(value):
        return Cell("yes" if value else "no")
    if isinstance(value, float):
        return Cell(f"{value:.4g}".replace("-", "−"), repr(value))
    return Cell(str(value))


def _is_same(values: pd.Series[Any]) -> bool:
    """Whether a column says the same of every row; of what was measured that would be a finding."""
    measured = pd.api.types.is_float_dtype(values) and values.name != "level"
    return len(values) > 1 and not measured and bool(values.nunique(dropna=False) == 1)


def _words(name: str) -> str:
    return label(name).replace("normalized", "normalised")
