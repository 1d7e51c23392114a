"""Costs add up: what was prepared, learned, and computed of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskgrid.analysis.costs import COLUMNS, merge_costs
from taskgrid.plugins.storage import Tower
from taskgrid.store.atomic import write_json

RUN = {"model": "m", "mode": "standard", "seed": 0}


def part(folder: Path, method: str, prepared: dict[str, float], **more: Any) -> dict[str, Any]:
    block = folder / f"{method}.json"
    write_json(block, {"subsets": ["a", "a+b"], "prepared": prepared})
    known = {"labels": RUN, "method": method, "options": {"of": 1}, "blocks": [str(block)]}
    return {**known, "learned": {}, "statistics": {}, **more}


def seconds(folder: Path, name: str, value: float) -> str:
    write_json(folder / name, {"seconds": value})
    return str(folder / name)


def test_seconds_are_of_the_merged_tasks_alone(tmp_path: Path) -> None:
    statistics = {
        "a": [seconds(tmp_path, "a", 10.0)],
        "b": [seconds(tmp_path, "b", 5.0), seconds(tmp_path, "b2", 2.0)],
        "": [seconds(tmp_path, "base", 0.5)],
    }
    learned = {"a+b": seconds(tmp_path, "learned", 100.0)}
    parts = [
        part(tmp_path, "fisher", {"a": 1.0, "a+b": 2.0}, statistics=statistics, learned=learned)
    ]
    table = merge_costs(parts, {"m": Tower(1000, 10)})
    assert list(table.columns) == list(COLUMNS)
    assert dict(zip(table["subset"], table["prepare_seconds"], strict=True)) == {
        "a": 11.5,
        "a+b": 119.5,
    }
    assert set(table["storage_mb"]) == {0.0} and table["options"].iloc[0] == '{"of":1}'


def test_what_was_found_and_not_measured_has_no_seconds(tmp_path: Path) -> None:
    parts = [part(tmp_path, "emr", {"a": 1.0}), part(tmp_path, "logit_ensemble", {})]
    table = merge_costs(parts, {"m": Tower(8_000_000, 10)}).set_index(["method", "subset"])
    assert table.loc[("emr", "a"), "prepare_seconds"] == 1.0
    assert table["prepare_seconds"].isna().sum() == 1
    # All experts are there already: nothing is prepared, and both are kept.
    assert table.loc[("logit_ensemble", "a+b"), "prepare_seconds"] == 0.0
    assert table.loc[("logit_ensemble", "a+b"), "storage_mb"] == pytest.approx(64.0)
    assert table.loc[("emr", "a+b"), "storage_mb"] == pytest.approx(34.0, abs=1e-4)
    assert '"storage":"32 + T bits per weight, T numbers"' in table["options"].iloc[0]
    assert merge_costs([], {}).empty
