"""The report of plausible tables, with figures and tables as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from taskgrid.plots.render import write_figure
from taskgrid.plots.sheet import PAGE
from taskgrid.plugins.cards import figure_card
from taskgrid.report.page import write_page
from taskgrid.store.tables import write_table
from tests.unit.example_tables import Example

FIGURES = ("subset_size", "cosine", "lambda_curve", "training", "cross_evaluation")


def write_report(
    given: Example, tasks: tuple[str, ...], results: Path, figures: Sequence[str] = FIGURES
) -> Path:
    """Write the report of an example, and what it is made of; ``given`` holds the chosen points."""
    tables = {"grid": given.grid, "selected": given.selected}
    for name, table in tables.items():
        (results / "tables").mkdir(parents=True, exist_ok=True)
        write_table(
            results / "tables" / f"{name}.parquet",
            pa.Table.from_pandas(table, preserve_index=False),
        )
    (results / "figures").mkdir(exist_ok=True)
    for name in figures:
        at = results / "figures" / name
        write_figure(name, given.tables(), PAGE, at.with_suffix(".pdf"), at.with_suffix(".png"))
    write_page(
        results / "report.html",
        settings(tasks, figures),
        results / "tables/grid.parquet",
        results / "tables/selected.parquet",
        [results / "figures" / f"{name}.png" for name in figures],
        [results / "tables/selected.parquet", results / "tables/summary.csv"],
    )
    return results / "report.html"


def settings(
    tasks: tuple[str, ...], figures: Sequence[str] = FIGURES, **changes: Any
) -> dict[str, Any]:
    """Return settings of the rule; models have an unknown size."""
    cards = {name: figure_card(name) for name in figures}
    return {
        "tasks": tasks,
        "towers": {},
        "figures": [
            {"name": name, "title": card.title, "category": card.category, "caption": card.caption}
            for name, card in cards.items()
        ],
        "tables": [
            {
                "file": "tables/selected.parquet",
                "title": "Chosen points",
                "caption": "Chosen on **validation**.",
            },
            {"file": "tables/summary.csv", "title": "Summary", "caption": "What a paper prints."},
        ],
        "tracking": None,
        **changes,
    }


def best(selected: pd.DataFrame, tasks: int) -> pd.DataFrame:
    """Return the chosen points of the merges of all tasks, the best first."""
    return selected[selected["size"] == tasks].sort_values("test_accuracy", ascending=False)
