"""The table of pairs against rows written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from taskgrid.analysis.pairs import COLUMNS, pair_changes
from taskgrid.analysis.summary import write_csv
from taskgrid.results import read_pairs

RUN = {"model": "m", "mode": "standard", "seed": 0, "method": "ties", "options": "{}"}
CHOSEN = {"a": "0.90", "b": "1.00", "a+b": "0.40", "a+c": "0.30", "a+b+c": "0.20"}
ACCURACY = {
    ("a", "0.90", "a"): 0.9,
    ("b", "1.00", "b"): 0.8,
    ("a+b", "0.40", "a"): 0.7,
    ("a+b", "0.40", "b"): 0.85,
    ("a+c", "0.30", "a"): 0.95,
    ("a+c", "0.30", "c"): 0.5,
    ("a+b+c", "0.20", "a"): 0.1,
    # A curve on test, a task outside, another method's point: none may enter.
    ("a", "0.40", "a"): 0.01,
    ("a+b", "0.90", "a"): 0.02,
    ("a", "0.90", "b"): 0.03,
}


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows: list[dict[str, Any]] = [
        {
            **RUN,
            "subset": subset,
            "size": subset.count("+") + 1,
            "point": point,
            "task": task,
            "in_subset": task in subset.split("+"),
            "split": split,
            "accuracy": accuracy if split == "test" else 0.99,
        }
        for (subset, point, task), accuracy in ACCURACY.items()
        for split in ("val", "test")
    ]
    chosen = [
        {**RUN, "subset": subset, "size": subset.count("+") + 1, "point": point, "study": study}
        for subset, point in CHOSEN.items()
        for study, point in (("addition", point), ("negation", "0.90"))
    ]
    return (pd.DataFrame(each).astype({"seed": "Int64"}) for each in (rows, chosen))  # type: ignore[return-value]


def test_a_pair_is_set_against_the_task_alone(tmp_path: Path) -> None:
    table = pair_changes(*tables())
    assert list(table.columns) == [*COLUMNS]
    found = {(row.task, row.partner): row for row in table.itertuples()}
    # Nothing is known of c alone, nor of b with c.
    assert set(found) == {("a", "b"), ("b", "a"), ("a", "c")}
    assert (found["a", "b"].alone, found["a", "b"].together) == (0.9, 0.7)
    changes = {pair: row.change for pair, row in found.items()}
    assert changes == pytest.approx({("a", "b"): -0.2, ("b", "a"): 0.05, ("a", "c"): 0.05})
    write_csv(tmp_path / "tables/pairs.csv", table)
    assert read_pairs(tmp_path)["change"].tolist() == pytest.approx([-0.2, 0.05, 0.05])


def test_seeds_and_methods_stay_apart() -> None:
    grid, selected = tables()
    more = [frame.assign(seed=1, method="average") for frame in (grid, selected)]
    more[0]["accuracy"] /= 2
    table = pair_changes(pd.concat([grid, more[0]]), pd.concat([selected, more[1]]))
    assert table["method"].tolist() == ["ties"] * 3 + ["average"] * 3
    assert table["change"].tolist() == pytest.approx([-0.2, 0.05, 0.05, -0.1, 0.025, 0.025])
