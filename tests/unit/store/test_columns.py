"""One name is one thing: the columns of all tables, their types, and their words in the files."""

from __future__ import annotations

from pathlib import Path

from taskgrid import plugins
from taskgrid.evaluation.plan.rows import GRID
from taskgrid.plugins.cards import study_card
from taskgrid.provenance import code_closure
from taskgrid.store.columns import COLUMNS, card_columns, words_of
from taskgrid.store.tables import read_table, write_table
from tools.tables import TABLES


def test_every_column_of_every_table_is_explained() -> None:
    used = {name for table in TABLES for name in table.columns}
    assert used <= COLUMNS.keys()
    for name, column in COLUMNS.items():
        assert len(column.about.split()) > 1 and not column.about.endswith("."), name


def test_no_column_is_explained_that_no_table_has() -> None:
    own = {
        name
        for study in plugins.names("study")
        for card in study_card(study).tables.values()
        for name in card.columns
    }
    assert COLUMNS.keys() <= {name for table in TABLES for name in table.columns} | own


def test_a_name_has_one_type_in_all_tables() -> None:
    kinds = {name: column.kind for name, column in COLUMNS.items()}
    for study in plugins.names("study"):
        for card in study_card(study).tables.values():
            for name, column in card_columns(card).items():
                assert kinds.setdefault(name, column.kind) == column.kind, (study, name)
    assert (kinds["seed"], kinds["scale"], kinds["subset"]) == ("integer", "number", "text")
    assert (kinds["options"], kinds["at_edge"], kinds["point"]) == ("text", "flag", "text")


def test_the_words_are_in_the_file(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", GRID.empty_table())
    schema = read_table(tmp_path / "a.parquet").schema
    assert schema == GRID
    assert words_of(schema) == {name: COLUMNS[name].about for name in GRID.names}
    write_table(tmp_path / "b.parquet", GRID.empty_table())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_words_are_in_no_digest_of_code() -> None:
    closure = code_closure("taskgrid.evaluation.plan.rows")
    assert "taskgrid.evaluation.plan.rows" in closure and "taskgrid.store.columns" not in closure
