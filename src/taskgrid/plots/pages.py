"""Tables as HTML pages for the report: sorted by a click, filtered as one types, nothing to load."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pandas as pd

from taskgrid.results import read_frame
from taskgrid.store.atomic import write_text

_NOT_FRACTIONS = (
    "scale",
    "level",
    "largest_logit_difference",
    "mean_logit_difference",
)

_STYLE = """
body { font: 14px/1.4 "DejaVu Sans", Verdana, sans-serif; margin: 1rem; color: #222; }
input { font: inherit; padding: .3rem .5rem; margin-bottom: .8rem; width: 22rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; }
td { white-space: nowrap; }
th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #222; cursor: pointer;
  text-align: left; vertical-align: bottom; }
td { border-bottom: 1px solid #e4e4e4; }
th.number, td.number { text-align: right; }
tr:hover td { background: #f2f6fa; }
"""

_SCRIPT = """
const body = document.querySelector("tbody");
const rows = [...body.rows];
const key = (row, at) => row.cells[at].dataset.key ?? row.cells[at].textContent;
document.querySelectorAll("th").forEach((head, at) => head.addEventListener("click", () => {
  const up = head.dataset.up !== "yes";
  head.dataset.up = up ? "yes" : "no";
  const number = head.classList.contains("number");
  rows.sort((a, b) => {
    const [x, y] = [key(a, at), key(b, at)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return (number ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
  });
  body.append(...rows);
}));
document.querySelector("input").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(" ");
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
});
"""


def table_page(table: pd.DataFrame, title: str) -> str:
    """Return a page that shows a table; fractions of correct answers in percent.

    Empty columns are left out; words that are the same in every row are said once, above the table.

    Args:
        table: the table.
        title: the page's title.
    """
    filled = table.dropna(axis="columns", how="all")
    constant = [name for name in map(str, filled) if _is_constant(filled[name])]
    columns = [_Column(name, filled[name]) for name in map(str, filled) if name not in constant]
    shared = {name: str(filled[name].iloc[0]) for name in constant}
    said = "; ".join(f"{_words(name)}: {text}" for name, text in shared.items() if text != "{}")
    heads = "".join(column.head() for column in columns)
    rows = "\n".join(
        f"<tr>{''.join(column.cell(at) for column in columns)}</tr>" for at in range(len(filled))
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<p>{html.escape(said)}</p>\n"
        f'<input type="search" placeholder="filter rows by words" aria-label="filter rows">\n'
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def write_page(table: str | Path, page: str | Path, title: str) -> None:
    """Read a Parquet or CSV table and write it as a page.

    Raises:
        ArtifactError: if the table is missing or damaged, or the page cannot be written.
    """
    write_text(page, table_page(read_frame(table), title))


class _Column:
    """One column as HTML."""

    def __init__(self, name: str, values: pd.Series[Any]) -> None:
        if pd.api.types.is_bool_dtype(values):
            values = values.map({True: "yes", False: "no"})
        self._name = name
        self._values = values.tolist()
        self._fraction = pd.api.types.is_float_dtype(values) and name not in _NOT_FRACTIONS
        self._class = ' class="number"' if pd.api.types.is_numeric_dtype(values) else ""

    def head(self) -> str:
        unit = " [%]" if self._fraction else ""
        return f"<th{self._class}>{html.escape(_words(self._name))}{unit}</th>"

    def cell(self, row: int) -> str:
        value = self._values[row]
        if pd.isna(value):
            return f'<td{self._class} data-key=""></td>'
        if self._fraction:
            return f'<td{self._class} data-key="{value:.6f}">{100 * value:.1f}</td>'
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return f"<td{self._class}>{html.escape(text)}</td>"


def _is_constant(values: pd.Series[Any]) -> bool:
    if pd.api.types.is_numeric_dtype(values) or len(values) < 2:
        return False
    return bool(values.nunique(dropna=False) == 1)


def _words(name: str) -> str:
    return name.replace("_", " ")
