"""Studies through Snakemake: a control task, a task without an expert, tables and figures as targets."""

from __future__ import annotations

from fractions import Fraction

import pandas as pd
import pytest

from tests.workflow.conftest import Checkout

CONTROL = {"name": "d", "source": "npz", "path": "data/d/d.npz", "expert": False}
NEGATION = {"name": "negation", "options": {"lambdas": [-0.5, -1, -2], "keep": 0.8, "refine": 1}}
ANALOGY = {
    "name": "analogy",
    "options": {"quadruples": [["a", "b", "c", "d"]], "lambdas": [0.5, 1]},
}


@pytest.fixture(scope="module")
def flow(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A finished checkout that gets a control task and two questions more."""
    checkout = finished.copy_to(tmp_path_factory.mktemp("studies") / "checkout")
    checkout.config["tasks"].append(CONTROL)
    checkout.config["studies"] = ["addition", NEGATION, ANALOGY, "shapley"]
    checkout.config["grid"] |= {"methods": ["task_arithmetic"], "block_size": 16}
    planned = checkout.plan("negation", "analogy")
    # A control task trains nothing; what was trained stays.
    assert "finetune" not in planned and planned["study"] == 2 and planned["figure"] == 2
    checkout.run("negation", "analogy", "shapley")
    return checkout


def val_rows(flow: Checkout, subset: str) -> pd.DataFrame:
    grid = flow.table("grid.parquet")
    rows = grid[(grid["subset"] == subset) & (grid["split"] == "val")]
    return rows[rows["method"] == "task_arithmetic"].pivot(
        index="point", columns="task", values="correct"
    )


def test_what_tasks_contribute_adds_up(flow: Checkout) -> None:
    values = flow.table("shapley/values.parquet")
    assert list(values["task"]) == ["a", "b", "c"]
    chosen = flow.table("selected.parquet")
    (whole,) = chosen[(chosen["study"] == "addition") & (chosen["size"] == 3)].to_dict("records")
    zero = flow.table("grid.parquet").query("method == 'zeroshot' and split == 'test'")
    zero = zero[zero["task"].isin(["a", "b", "c"])]["accuracy"].mean()
    assert values["value"].sum() == pytest.approx(whole["test_accuracy"] - zero)


def test_every_task_is_negated_beside_the_control(flow: Checkout) -> None:
    targets = flow.table("negation/targets.parquet").set_index("task")
    assert list(targets.index) == ["a", "b", "c"] and set(targets["control"]) == {"d"}
    for task, row in targets.iterrows():
        counts = val_rows(flow, str(task))
        negative = {
            point: (counts.loc[point, task], -float(point))
            for point in counts.index
            if point.startswith("-")
        }
        assert {"-0.50", "-1.00", "-2.00"} <= set(negative) and len(negative) <= 4
        kept = {
            point: score
            for point, score in negative.items()
            if counts.loc[point, "d"] >= Fraction("0.8") * int(counts.loc["0.00", "d"])
        }
        assert bool(row["met"]) == bool(kept)
        if kept:
            assert row["point"] == min(kept, key=lambda point: kept[point])
        assert row["drop"] == pytest.approx(row["zeroshot"] - row["accuracy"])
        assert row["flips"] >= round(abs(row["drop"]) * row["n"])


def test_an_analogy_is_measured_on_a_task_without_an_expert(flow: Checkout) -> None:
    (row,) = flow.table("analogy/quadruples.parquet").to_dict("records")
    assert [row[name] for name in ("a", "b", "c", "task")] == list("abcd")
    correct = val_rows(flow, "a+b+c")["d"].dropna()
    points = [f"a:-{x},b:{x},c:{x}" for x in ("0.50", "1.00")]
    assert set(correct.index) == {"0.00", *points}
    best = max(points, key=lambda point: (correct[point], -points.index(point)))
    assert row["point"] == best and bool(row["met"]) == (correct[best] > correct["0.00"])
    assert pd.isna(row["expert"]) and 0 <= row["others"] <= 1


def test_the_choices_stand_among_the_others_and_figures_are_drawn(flow: Checkout) -> None:
    selected = flow.table("selected.parquet")
    counts = selected["study"].value_counts().to_dict()
    assert counts == {"addition": 7, "negation": 3, "analogy": 1}
    for name in ("negation", "analogy"):
        assert (flow / f"results/figures/{name}.png").stat().st_size > 1000
    assert flow.plan("negation", "analogy") == {}


def test_without_a_control_it_is_refused_before_any_job(flow: Checkout) -> None:
    tasks = flow.config["tasks"]
    flow.config["tasks"] = tasks[:3]
    refused = flow.snakemake("negation", "-n")
    flow.config["tasks"] = tasks
    assert refused.code != 0 and "study 'negation' needs a control" in refused.text
