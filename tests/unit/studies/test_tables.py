"""A study's own tables: held against its card, and written by its script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest

from taskgrid.analysis.collected import write_report
from taskgrid.analysis.costs import merge_costs
from taskgrid.analysis.selection import select
from taskgrid.errors import DataError
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.rows import sort_rows
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.plugins.cards import Column, StudyCard, TableCard
from taskgrid.results import read_study
from taskgrid.store.columns import words_of
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import read_table, write_table
from taskgrid.studies import tables
from taskgrid.studies.seam import Results
from tests.unit.example_plans import FakeBench, method, setting

CARD = StudyCard(
    title="Toy",
    tables={
        "counts": TableCard(
            row="a task",
            columns={"task": None, "seed": None, "twice": Column(kind="number", about="two of it")},
        )
    },
)
RESULTS = Results("mine", pd.DataFrame(), pd.DataFrame({"study": ["mine", "other"]}), dict, ("a",))


def made(monkeypatch: pytest.MonkeyPatch, table: pa.Table) -> pa.Table:
    study = SimpleNamespace(table=lambda name, results: table)
    monkeypatch.setattr(tables, "study_card", lambda name: CARD)
    monkeypatch.setattr(tables, "get_study", lambda name, options: study)
    return tables.study_table("toy", {}, "counts", RESULTS)


def test_a_table_has_the_types_and_words_of_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    table = made(monkeypatch, pa.table({"task": ["a"], "seed": [None], "twice": [2]}))
    assert [str(field.type) for field in table.schema] == ["string", "int64", "double"]
    assert words_of(table.schema)["twice"] == "two of it" and words_of(table.schema)["task"]


def test_another_table_than_the_card_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"toy/counts has the columns task, and its card says task, s"
    ):
        made(monkeypatch, pa.table({"task": ["a"]}))
    with pytest.raises(DataError, match="toy/counts does not fit the types on its card"):
        made(monkeypatch, pa.table({"task": ["a"], "seed": [0], "twice": ["two"]}))


def test_a_study_finds_its_own_choices() -> None:
    assert RESULTS.own["study"].tolist() == ["mine"]


def test_the_script_writes_the_tables_of_a_study(tmp_path: Path) -> None:
    store, bench, ours = OutcomeStore(tmp_path / "store"), FakeBench(), setting("ab")
    plan = make_plan(ours, method(), ["a", "b", "a+b"], ["0.00", "0.50", "1.00"])
    result = run_plan(plan, store, bench.open)
    grid = sort_rows(pa.concat_tables([run_reference(ours, store, bench.open).table, result.table]))
    write_table(tmp_path / "grid.parquet", grid)
    chosen = select(grid, result.choices, store.find)
    write_table(tmp_path / "selected.parquet", chosen)
    settings = {
        "name": "shapley",
        "label": "fair",
        "options": {"draws": 50},
        "tasks": ["a", "b"],
        "brought": {},
    }
    made = tmp_path / "tables" / "fair" / "values.parquet"
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "scripts/study.py", "--settings", json.dumps(settings)]
    command += ["--store", str(tmp_path / "store"), "--grid", str(tmp_path / "grid.parquet")]
    write_report(tmp_path / "costs.csv", merge_costs([], {}))
    command += [
        "--selected",
        str(tmp_path / "selected.parquet"),
        "--costs",
        str(tmp_path / "costs.csv"),
        "--measured",
        "--name",
        "values",
        "--table",
        str(made),
    ]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fair: 2 rows of values" in done.stdout
    frame = read_study("fair", "values", tmp_path)
    gain = chosen.to_pandas().set_index("subset").loc["a+b", "test_accuracy"]
    zero = grid.to_pandas().query("method == 'zeroshot' and split == 'test'")["accuracy"].mean()
    assert frame["value"].sum() == pytest.approx(gain - zero, abs=1e-12)
    assert all(words_of(read_table(made).schema).values())
