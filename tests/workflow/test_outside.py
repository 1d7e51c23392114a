"""Plug-ins of another package through the flow: trained, computed, merged, asked, drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskgrid.store.weights import load_state
from tests.plugins.installed import install
from tests.workflow.conftest import GRID, Checkout

pytestmark = pytest.mark.workflow

RUN = "taskgrid-vit-4-s0/biases/0"


def test_one_of_each_kind_ends_in_tables_and_a_figure(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(site))
    checkout.config["tasks"] = checkout.config["tasks"][:2]
    checkout.config["finetune"]["modes"] = ["biases"]
    checkout.config["grid"]["methods"] = [
        "one_bit",
        {"name": "by_norm", "lambdas": [1]},
        {"name": "company", "lambdas": [0.5]},
        {"name": "surest", "options": {"count": 4}},
    ]
    checkout.config["grid"] |= {"lambdas": [0.5, 1], "subsets": {"include": [["a", "b"]]}}
    checkout.config["studies"] = ["worst"]
    figure = "results/figures/worst.png"
    ran = checkout.run(GRID, figure)
    assert (ran.rules["statistic"], ran.rules["learn"], ran.rules["study"]) == (2, 1, 1)

    base, _ = load_state(checkout / "results/models/taskgrid-vit-4-s0/base.safetensors")
    expert, _ = load_state(checkout / f"results/experts/{RUN}/a/expert.safetensors")
    moved = {key for key in base if not (base[key] == expert[key]).all()}
    assert moved and all(key.endswith("bias") for key in moved)

    grid = checkout.table("grid.parquet")
    merged = {"one_bit", "by_norm", "company", "surest"}
    assert set(grid["method"]) == {"zeroshot", "expert", *merged}
    worst = checkout.table("worst/tasks.parquet")
    assert set(worst["method"]) == merged and set(worst["subset"]) == {"a+b"}
    test = grid[(grid["split"] == "test") & grid["in_subset"]]
    for row in worst.itertuples():
        same = test[(test["method"] == row.method) & (test["subset"] == row.subset)]
        assert row.accuracy == same["accuracy"].min()
    assert (checkout / figure).stat().st_size > 1000

    assert not checkout.plan(GRID, figure)
    # An edit outside evaluates anew what it merged, and nothing else.
    path = site / "outside_plugins" / "method.py"
    path.write_text(
        path.read_text().replace("delta.double().sign()", "delta.double().sign().neg()")
    )
    again = checkout.plan(GRID, figure)
    assert again["merge"] == again["eval"] == 1
    assert not {"finetune", "statistic", "learn", "reference"} & again.keys()
