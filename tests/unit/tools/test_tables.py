"""The page on result tables says what the code says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from taskgrid.evaluation.budget.budget import Report
from tools import tables

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tables.md"


def test_the_page_is_made_from_the_columns() -> None:
    made = tables.reference()
    assert PAGE.read_text(encoding="utf-8") == made, "run: python -m tools.tables > docs/tables.md"
    assert "| `point` | text | the scaling coefficients as text" in made
    assert "## `tables/shapley/values.parquet`" in made


def test_the_lattice_report_has_the_columns_of_the_page() -> None:
    (lattice,) = (table for table in tables.TABLES if table.file == "tables/lattice.csv")
    parts = ("error", "bias")
    flat = {field.name for field in fields(Report)} - set(parts)
    flat |= {f"{part}_{end}" for part in parts for end in ("mean", "low", "high")}
    assert flat <= set(lattice.columns)
