"""The questions of `docs/tables.md`: both answers run on finished results, and are the same."""

from __future__ import annotations

import ast
from typing import Any

import duckdb
import pandas as pd
import pytest

from tests.workflow.conftest import Checkout
from tools.questions import OPENING, QUESTIONS, SQL_OPENING, Question

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def opened(finished: Checkout) -> dict[str, Any]:
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.folder)
        exec(OPENING, names)
    return names


def value(code: str, names: dict[str, Any]) -> pd.DataFrame:
    """Return what the last line of some code is."""
    *steps, last = ast.parse(code.strip()).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(steps, []), "steps", "exec"), names)
    found: pd.DataFrame = eval(compile(ast.Expression(last.value), "last", "eval"), names)
    return found


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame without an order of its rows, and with texts for labels."""
    flat = frame.reset_index(drop=frame.index.name is None)
    flat.columns = pd.Index(map(str, flat.columns))
    kept = [name for name in flat if not pd.api.types.is_float_dtype(flat[name])]
    return flat.sort_values(kept or list(flat)).reset_index(drop=True)


def test_there_are_ten_in_three_lines_each() -> None:
    assert len(QUESTIONS) == 10
    for one in QUESTIONS:
        for code in (one.pandas, one.sql):
            lines = code.strip().splitlines()
            assert len(lines) <= 3 and max(map(len, lines)) <= 110, one.asks


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.asks[:40])
def test_both_answers_are_the_same(
    finished: Checkout,
    opened: dict[str, Any],
    question: Question,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(finished.folder)
    by_pandas = plain(value(question.pandas, dict(opened)))
    with duckdb.connect() as connection:
        connection.execute(SQL_OPENING)
        by_sql = plain(connection.sql(question.sql).df())
    assert len(by_pandas), "there is nothing to compare"
    pd.testing.assert_frame_equal(
        by_pandas, by_sql, check_dtype=False, check_column_type=False, check_exact=False, atol=1e-9
    )


def test_the_answers_say_what_the_tables_hold(
    finished: Checkout, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    best, hurts, every, *_ = (value(one.pandas, dict(opened)) for one in QUESTIONS)
    summary = finished.table("summary.csv")
    sizes = summary[summary["row"] == "size"]
    expected = sizes.groupby("size")["accuracy"].max()
    said = best.set_index("size")["test_accuracy"].to_dict()
    assert said == pytest.approx(expected.to_dict(), abs=1e-4)
    assert list(hurts.index) == list(hurts.columns) == ["a", "b", "c"]
    rows = summary[(summary["row"] == "size") & (summary["size"] == 3)].set_index("method")
    for method, task, accuracy in every[["method", "task", "accuracy"]].itertuples(index=False):
        assert round(accuracy, 6) == rows.loc[method, task]
