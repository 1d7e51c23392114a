"""What came of a run: the table that a paper prints, where all lies, and what to open.

``python -m taskgrid.workflow.terminal.ending`` in a working folder.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from taskgrid.errors import ArtifactError, TaskgridError
from taskgrid.plugins.cards import merger_card
from taskgrid.sentences import without_secrets
from taskgrid.store.atomic import read_json
from taskgrid.tracking.target import LOCAL, RUNS
from taskgrid.workflow.terminal.output import RUN_LOG

RESULTS = Path("results")

_LAST = "storage_mb"
"""The last column of the summary before those of the tasks."""
_PUBLISHED = ("published", "difference", "published_from")
_WIDE = 120
"""Columns of what is no terminal."""

Row = Mapping[str, str]


def ending(folder: Path = Path(), width: int = _WIDE) -> str:
    """Return what is said when all is done.

    Args:
        folder: the working folder.
        width: columns of the terminal; where tasks do not fit, averages are shown alone.
    """
    summary = folder / RESULTS / "tables" / "summary.csv"
    lines = []
    if summary.is_file():
        with summary.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            lines = [*printed(list(reader), list(reader.fieldnames or ()), width), ""]
    return "\n".join([*lines, *places(folder)])


def printed(rows: Sequence[Row], columns: Sequence[str], width: int = _WIDE) -> list[str]:
    """Return the summary's lines for the base, the experts and the merges of all tasks, in percent.

    Args:
        rows: lines of the summary.
        columns: its columns.
        width: columns of the terminal.
    """
    shown = [row for row in rows if row["row"] in ("zeroshot", "expert", "all")]
    runs = {(row["model"], row["mode"], row["seed"]) for row in shown}
    after = columns.index(_LAST) + 1 if _LAST in columns else len(columns)
    tasks = [name for name in columns[after:] if name not in _PUBLISHED]
    titles = [_title(row, shown, len(tasks), several=len(runs) > 1) for row in shown]
    head = ["test accuracy in %", *tasks, "average", "normalised"]
    cells = [
        [
            title,
            *(_percent(row[task]) for task in tasks),
            _average(row),
            _percent(row["normalized"]),
        ]
        for title, row in zip(titles, shown, strict=True)
    ]
    lines = _aligned([head, *cells])
    if tasks and max(map(len, lines)) > width:
        lines = _aligned([[line[0], *line[-2:]] for line in [head, *cells]])
    return lines if shown else []


def places(folder: Path = Path(), environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield where results lie, and what to open.

    Args:
        folder: the working folder.
        environ: the environment.
    """
    results = (folder / RESULTS).absolute()
    yield f"tables   {RESULTS / 'tables'}   figures  {RESULTS / 'figures'}   log  {RUN_LOG}"
    for name, file in (("report", "report.html"), ("explorer", "explorer.html")):
        if (results / file).is_file():
            yield f"{name:8} {(results / file).as_uri()}"
    yield f"{'runs':8} {_registry(results, environ)}"


def _registry(results: Path, environ: Mapping[str, str]) -> str:
    uri = environ.get("MLFLOW_TRACKING_URI", "")
    with suppress(ArtifactError, KeyError, OSError):
        uri = uri or str(read_json(results / "registry" / "sync.json")["uri"])
    served = uri.startswith(("http://", "https://"))
    return without_secrets(uri) if served else f"make ui, then {LOCAL}{RUNS}"


def _title(row: Row, rows: Sequence[Row], tasks: int, *, several: bool) -> str:
    run = f"{row['model']} {row['mode']} {row['seed']}: " if several else ""
    if row["row"] != "all":
        return run + {"zeroshot": "zero-shot", "expert": "experts"}[row["row"]]
    point = f", λ = {float(row['scale']):.2f}" if row["scale"] else ""
    return f"{run}{_method(row, rows)}, all {row['size'] or tasks}{point}"


def _method(row: Row, rows: Sequence[Row]) -> str:
    """Return a method's title, with the options by which it differs from others of its name."""
    name = row["method"]
    with suppress(TaskgridError):
        name = merger_card(row["method"]).title
    own = _options(row)
    others = [_options(other) for other in rows if other["method"] == row["method"]]
    telling = {key: value for key, value in own.items() if any(value != o.get(key) for o in others)}
    return " ".join([name, *(f"{key}={value}" for key, value in telling.items())])


def _options(row: Row) -> dict[str, object]:
    found = json.loads(row["options"] or "{}")
    return found if isinstance(found, dict) else {}


def _average(row: Row) -> str:
    interval = ""
    if row["accuracy_low"] and row["accuracy_high"]:
        interval = f" ({_percent(row['accuracy_low'])} to {_percent(row['accuracy_high'])})"
    return _percent(row["accuracy"]) + interval


def _percent(value: str) -> str:
    return f"{100 * float(value):.1f}" if value else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


if __name__ == "__main__":
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE
    print(f"\n{ending(width=terminal)}")
