"""Tangent models through the flow: evaluated post hoc, exact best lambdas, a point as a file."""

from __future__ import annotations

from taskgrid.models.clip import load_clip
from taskgrid.store.weights import read_lineage
from tests.unit.example_margins import held
from tests.workflow.conftest import GRID, Checkout


def test_posthoc_evaluation_exact_lambdas_and_export(checkout: Checkout) -> None:
    checkout.config["tasks"] = checkout.config["tasks"][:2]
    checkout.config["grid"]["methods"] = ["task_arithmetic"]
    checkout.config["evaluation"] = {"posthoc": "standard"}
    point = "taskgrid-vit-4-s0/posthoc/0/task_arithmetic/a+b/0.35.safetensors"
    found = ("results/tables/continuous.parquet", "results/explorer.html")
    checkout.run(GRID, *found, f"results/export/{point}")

    grid = checkout.table("grid.parquet")
    assert set(grid["mode"].dropna()) == {"standard", "posthoc"}
    keys = {
        mode: set(rows["key"])
        for mode, rows in grid[grid["point"] != "0.00"].groupby("mode")
        if mode != "zeroshot"
    }
    assert not keys["standard"] & keys["posthoc"]
    origin = grid[(grid["method"] == "task_arithmetic") & (grid["point"] == "0.00")]
    counts = origin.groupby(["subset", "task", "split"])["key"].nunique()
    assert (counts == 1).all()

    exact = checkout.table("continuous.parquet")
    assert set(exact["mode"]) == {"posthoc"}
    whole = exact[exact["task"].isna()]
    assert set(whole["subset"]) == {"a", "b", "a+b"}
    # At the best of all real lambdas validation is no worse than at the best of the grid's.
    best = (
        grid[(grid["mode"] == "posthoc") & (grid["split"] == "val") & (grid["subset"] == "a+b")]
        .groupby("point")["normalized_accuracy"]
        .mean()
        .max()
    )
    (row,) = whole[whole["subset"] == "a+b"].to_dict("records")
    assert row["low"] <= row["scale"] <= row["high"]
    assert row["val_normalized"] >= best - 1e-12

    # What sliders would answer is what was measured, and no other run has such sliders.
    explored = held((checkout / "results/explorer.html").read_text())
    sliders = {run["mode"]: run["exact"] for run in explored["runs"]}
    merged = grid[(grid["method"] == "task_arithmetic") & (grid["mode"] == "posthoc")]
    assert sliders.pop("standard") is None
    assert sliders["posthoc"]["compared"] == (merged["split"] == "val").sum()
    assert (sliders["posthoc"]["low"], sliders["posthoc"]["high"]) == (0, 1)
    assert sliders["posthoc"]["differing"] == 0

    exported = checkout / "results" / "export" / point
    clip = load_clip("taskgrid-vit-4", str(exported))
    lineage = read_lineage(exported)
    assert lineage["subset"] == "a+b"
    assert clip.visual_digest != load_clip("taskgrid-vit-4", "s0").visual_digest


def test_interpolated_curves_and_a_lattice_on_a_budget(checkout: Checkout) -> None:
    names = "abcd"
    checkout.config["tasks"] = [
        {"name": name, "source": "npz", "path": f"data/{name}/{name}.npz"} for name in names
    ]
    checkout.config["grid"] |= {
        "methods": ["task_arithmetic"],
        "subsets": {"sizes": [1, 4]},
        "block_size": 16,
        "lambdas": {"start": 0, "stop": 1, "step": 0.02},
    }
    checkout.config["evaluation"] = {"curves": {"interpolate": True, "nodes": 7, "tolerance": 0.5}}
    checkout.config["lattice"] = {
        "budget": 14,
        "lambdas": [0.3],
        "audit": 3,
        "level": 0.5,
    }
    checkout.run(GRID, "results/tables/lattice.parquet")

    grid = checkout.table("grid.parquet")
    merged = grid[grid["method"] == "task_arithmetic"]
    assert merged["interpolated"].sum() > len(merged) / 2
    assert merged[merged["interpolated"]]["bound"].le(0.5).all()
    assert not merged[merged["role"] == "selected"]["interpolated"].any()

    # 11 of at most two tasks and 3 audited; of the five larger merges two are predicted.
    lattice = checkout.table("lattice.parquet").set_index(["subset", "task"]).sort_index()
    assert len(lattice) == 4 + 6 * 2 + 4 * 3 + 4
    guessed = lattice[lattice["interpolated"]]
    exact = lattice[~lattice["interpolated"]]
    assert guessed.index.get_level_values("subset").nunique() == 2
    assert guessed["size"].gt(2).all()
    assert guessed["bound"].between(0, 1).all()
    assert exact["bound"].isna().all()
    (report,) = checkout.table("lattice.csv").to_dict("records")
    parts = [report[name] for name in ("core", "further", "audited", "rest")]
    assert parts == [11, 0, 3, 2]
    assert 0 <= report["error_low"] <= report["error_mean"] <= report["error_high"]
    assert report["error_limit"] <= report["error_ceiling"]
    logs = checkout / "results/logs/predict/taskgrid-vit-4-s0/standard/0/task_arithmetic.log"
    assert "whatever the errors are" in logs.read_text()
    audited = exact[exact["size"] > 2].index.get_level_values("subset").unique()
    kept = list((checkout / "results/store/logits").glob("*.npy"))
    assert len(kept) == 11 * 4 + sum(subset.count("+") + 1 for subset in audited)

    # A budget for all 16: two more merges are measured, and nothing else.
    checkout.config["lattice"]["budget"] = 16
    checkout.run(GRID, "results/tables/lattice.parquet")
    whole = checkout.table("lattice.parquet").set_index(["subset", "task"]).sort_index()
    assert whole.index.equals(lattice.index)
    assert not whole["interpolated"].any()
    columns = ["key", "n", "correct", "nll", "ece"]
    assert whole.loc[exact.index, columns].equals(exact[columns])
    assert not set(whole.loc[guessed.index, "key"]) & set(guessed["key"])
    now = list((checkout / "results/store/logits").glob("*.npy"))
    assert len(now) == len(kept) + len(guessed)
    off = (whole.loc[guessed.index, "accuracy"] - guessed["accuracy"]).abs()
    assert off.groupby("subset").mean().mean() <= report["error_ceiling"]
