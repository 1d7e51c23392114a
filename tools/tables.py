"""The reference of result tables in Markdown: `python -m tools.tables`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from taskgrid import plugins
from taskgrid.analysis import comparison, costs, pairs, summary
from taskgrid.analysis.conflicts import CONFLICTS
from taskgrid.analysis.selection import SELECTED
from taskgrid.evaluation.plan.rows import GRID
from taskgrid.evaluation.tangent.peaks import CONTINUOUS
from taskgrid.plugins.cards import Column, study_card
from taskgrid.store.columns import COLUMNS, card_columns
from tools.questions import questions

_HEAD = """# Result tables

Made from `src/taskgrid/store/columns.py` and the cards of studies by `python -m tools.tables`; a test keeps
the two equal. The Parquet files say the same of themselves, in the metadata of their fields:
`pyarrow.parquet.read_schema(path).field("point").metadata`. A name is one thing, of one type, in every table.
Accuracies are fractions. `taskgrid.results` reads the tables with their types.
"""


@dataclass(frozen=True)
class Table:
    """A table of results: where it lies, what a row is, and its columns in order."""

    file: str
    row: str
    columns: Sequence[str]


_RUN = ("model", "mode", "seed")
_LATTICE = (
    *(*_RUN, "method", "point", "scale", "core", "further", "audited", "rest", "decay", "level"),
    *("largest", "error_limit", "error_ceiling", "beyond", "expected_beyond"),
    *("error_mean", "error_low", "error_high", "bias_mean", "bias_low", "bias_high"),
)
_PRECISION = (
    *(*_RUN, "precision", "machine", "weights", "task", "n", "fp32_accuracy", "accuracy"),
    *("difference", "difference_low", "difference_high", "changed", "unexplained"),
    *("largest_logit_difference", "mean_logit_difference", "passed"),
)

TABLES = (
    Table("tables/grid.parquet", "a grid point on one task and split", GRID.names),
    Table("tables/selected.parquet", "a point that a study chose, for a question", SELECTED.names),
    Table(
        "tables/summary.csv",
        "a line of a printed table; after these columns comes one per task, with the accuracy on it",
        [*summary.LEADING, *summary.PUBLISHED],
    ),
    Table("tables/costs.csv", "a merge, and what it cost", costs.COLUMNS),
    Table("tables/pairs.csv", "an ordered pair of tasks: what the partner does", pairs.COLUMNS),
    Table("tables/published.csv", "a published number beside the run's", comparison.COLUMNS),
    Table(
        "tables/conflicts.parquet",
        "a pair of task vectors, or one with itself, in a layer",
        CONFLICTS.names,
    ),
    Table(
        "tables/continuous.parquet",
        "the exact best scale of a subset of tangent models, or of one of its tasks alone",
        CONTINUOUS.names,
    ),
    Table("tables/lattice.parquet", "as in the grid, of a lattice on a budget", GRID.names),
    Table("tables/lattice.csv", "a lattice on a budget, and what is known of its errors", _LATTICE),
    Table("tables/precision.csv", "a comparison of a reduced precision with fp32", _PRECISION),
    Table("experts/.../history.parquet", "a value of a training", ("step", "metric", "value")),
)
"""The tables under ``results``, those of studies left out."""


def reference() -> str:
    """Return the page: questions, then a section per table, every column with its type and its words."""
    parts = [
        _section(table.file, table.row, {name: COLUMNS[name] for name in table.columns})
        for table in TABLES
    ]
    return _HEAD + questions() + "".join([*parts, *_own()])


def _own() -> Iterator[str]:
    for study in plugins.names("study"):
        for name, card in study_card(study).tables.items():
            yield _section(f"tables/{study}/{name}.parquet", card.row, card_columns(card))


def _section(file: str, row: str, columns: Mapping[str, Column]) -> str:
    lines = [f"\n## `{file}`\n\nA row is {row}.\n\n| column | type | |\n|---|---|---|\n"]
    for name, column in columns.items():
        about = column.about.replace("|", "\\|")
        lines.append(f"| `{name}` | {column.kind} | {about} |\n")
    return "".join(lines)


if __name__ == "__main__":
    print(reference(), end="")
