from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from taskgrid.analysis.comparison import COLUMNS
from taskgrid.analysis.summary import LEADING, PUBLISHED, summarise, with_published, write_csv
from taskgrid.errors import DataError
from taskgrid.plugins.storage import Tower
from taskgrid.results import read_summary

TASKS = ("b", "a")
# Accuracies on test: base, own expert, and the merges at their chosen lambda.
BASE = {"a": 0.2, "b": 0.4}
EXPERT = {"a": 0.8, "b": 1.0}
MERGED = {"a": {"a": 0.7}, "b": {"b": 0.9}, "a+b": {"a": 0.6, "b": 0.8}}
CHOSEN = {"a": "1.00", "b": "0.90", "a+b": "0.40"}


def row(
    method: str, subset: str, scale: str, task: str, accuracy: float, **more: Any
) -> dict[str, Any]:
    return {
        "model": "m",
        "mode": None if method == "zeroshot" else "standard",
        "seed": None if method == "zeroshot" else 0,
        "method": method,
        "options": "{}",
        "subset": subset,
        "point": scale,
        "task": task,
        "in_subset": task in subset.split("+"),
        "split": "test",
        "accuracy": accuracy,
        **more,
    }


def grid(seeds: tuple[int, ...] = (0,)) -> pd.DataFrame:
    rows = [row("zeroshot", "", "0.00", task, BASE[task]) for task in "ab"]
    for seed in seeds:
        for expert in "ab":
            for task in "ab":
                accuracy = EXPERT[task] if expert == task else 0.1
                rows.append(row("expert", expert, "1.00", task, accuracy, seed=seed))
        for subset, scores in MERGED.items():
            for task, accuracy in scores.items():
                rows.append(row("ties", subset, CHOSEN[subset], task, accuracy, seed=seed))
                # A curve on test and a task outside: neither may enter.
                rows.append(row("ties", subset, "0.10", task, 0.99, seed=seed))
            rows.append(row("ties", subset, CHOSEN[subset], "c", 0.99, seed=seed))
    rows += [{**line, "split": "val", "accuracy": 0.5} for line in rows]
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def selected(seeds: tuple[int, ...] = (0,)) -> pd.DataFrame:
    lines = []
    for seed in seeds:
        for subset, scores in MERGED.items():
            relative = [score / EXPERT[task] for task, score in scores.items()]
            accuracy = sum(scores.values()) / len(scores)
            normalized = sum(relative) / len(relative)
            lines.append(
                {
                    "model": "m",
                    "mode": "standard",
                    "seed": seed,
                    "method": "ties",
                    "options": "{}",
                    "subset": subset,
                    "size": len(scores),
                    "study": "addition",
                    "point": CHOSEN[subset],
                    "scale": float(CHOSEN[subset]),
                    "test_accuracy": accuracy,
                    "test_normalized": normalized,
                    "test_accuracy_low": accuracy - 0.01,
                    "test_accuracy_high": accuracy + 0.01,
                    "test_normalized_low": normalized - 0.02,
                    "test_normalized_high": normalized + 0.02,
                    "at_edge": subset == "a",
                }
            )
    return pd.DataFrame(lines).astype({"seed": "Int64"})


def line(table: pd.DataFrame, kind: str, size: int) -> dict[str, Any]:
    (found,) = table[(table["row"] == kind) & (table["size"] == size)].to_dict("records")
    return found


def test_a_summary_has_a_line_for_everything_a_paper_prints() -> None:
    table = summarise(grid(), selected(), TASKS)
    assert list(table.columns) == [*LEADING, "b", "a"]
    assert list(zip(table["row"], table["size"], strict=True)) == [
        ("zeroshot", 0),
        ("expert", 1),
        ("size", 1),
        ("size", 2),
        ("all", 2),
    ]


def test_what_is_kept_beside_the_base() -> None:
    masks = [frame.replace({"method": {"ties": "tall_mask"}}) for frame in (grid(), selected())]
    table = summarise(masks[0], masks[1], TASKS, towers={"m": Tower(1000, 10)})
    bits = {kind: line(table, kind, size)["bits_per_weight"] for kind, size in (
        ("zeroshot", 0), ("expert", 1), ("size", 1), ("all", 2)
    )}  # fmt: skip
    # Two experts; one float32 vector and one mask; the same vector and two masks.
    assert bits == {"zeroshot": 0, "expert": 64, "size": 33, "all": 34}
    assert line(table, "all", 2)["storage_mb"] == pytest.approx(1000 * 34 / 8 / 1e6)
    single = summarise(grid(), selected(), TASKS, towers={"m": Tower(1000, 10)})
    assert line(single, "all", 2)["storage_mb"] == 0
    assert summarise(grid(), selected(), TASKS)["storage_mb"].isna().all()


def test_reference_lines() -> None:
    table = summarise(grid(), selected(), TASKS)
    zeroshot, expert = line(table, "zeroshot", 0), line(table, "expert", 1)
    assert (zeroshot["a"], zeroshot["b"], zeroshot["accuracy"]) == (0.2, 0.4, pytest.approx(0.3))
    # Zero-shot is normalised by the experts of the run it stands in.
    assert zeroshot["normalized"] == pytest.approx((0.2 / 0.8 + 0.4 / 1.0) / 2)
    assert (zeroshot["mode"], zeroshot["seed"]) == ("standard", 0)
    assert (expert["a"], expert["b"], expert["normalized"]) == (0.8, 1.0, 1.0)
    assert expert["accuracy"] == pytest.approx(0.9)


def test_lines_by_size_are_means_over_subsets() -> None:
    one = line(summarise(grid(), selected(), TASKS), "size", 1)
    assert (one["subsets"], one["edges"]) == (2, 1)
    assert one["accuracy"] == pytest.approx((0.7 + 0.9) / 2)
    assert one["accuracy_min"] == pytest.approx(0.7)
    assert one["normalized"] == pytest.approx((0.7 / 0.8 + 0.9) / 2)
    assert one["normalized_min"] == pytest.approx(0.7 / 0.8)
    assert (one["a"], one["b"]) == (0.7, 0.9)
    assert pd.isna(one["point"]) and pd.isna(one["scale"])


def test_the_merge_of_all_tasks_has_its_lambda_and_interval() -> None:
    table = summarise(grid(), selected(), TASKS)
    every = line(table, "all", 2)
    assert (every["point"], every["scale"], every["a"], every["b"]) == ("0.40", 0.4, 0.6, 0.8)
    assert every["accuracy"] == pytest.approx(0.7)
    assert (every["accuracy_low"], every["accuracy_high"]) == pytest.approx((0.69, 0.71))
    normalized = (0.6 / 0.8 + 0.8) / 2
    assert every["normalized"] == pytest.approx(normalized)
    assert (every["normalized_low"], every["normalized_high"]) == pytest.approx(
        (normalized - 0.02, normalized + 0.02)
    )
    assert line(table, "size", 2)["accuracy"] == every["accuracy"]


def test_without_the_merge_of_all_tasks_there_is_no_such_line() -> None:
    chosen = selected()
    table = summarise(grid(), chosen[chosen["subset"] != "a+b"], TASKS)
    assert set(table["row"]) == {"zeroshot", "expert", "size"}


def test_runs_stand_one_below_the_other_and_other_studies_stay_out() -> None:
    chosen = selected((0, 1))
    other = chosen.assign(study="negation", test_accuracy=0.0)
    table = summarise(grid((0, 1)), pd.concat([chosen, other]), TASKS)
    once = summarise(grid(), selected(), TASKS)
    for seed in (0, 1):
        part = table[table["seed"] == seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(part.drop(columns="seed"), once.drop(columns="seed"))


def test_a_missing_reference_row_is_named() -> None:
    rows = grid()
    lost = (rows["method"] == "expert") & (rows["subset"] == "b") & (rows["task"] == "b")
    with pytest.raises(
        DataError, match="expert of m, standard, seed 0 has no test row on task 'b'"
    ):
        summarise(rows[~lost], selected(), TASKS)
    lost = (rows["method"] == "zeroshot") & (rows["task"] == "a")
    with pytest.raises(DataError, match="zero-shot model m has no test row on task 'a'"):
        summarise(rows[~lost], selected(), TASKS)


def test_the_file_holds_so_many_decimals_that_print_rounds_once(tmp_path: Path) -> None:
    table = summarise(grid(), selected(), TASKS)
    path = tmp_path / "tables" / "summary.csv"
    write_csv(path, table)
    content = path.read_bytes()
    assert b"\r" not in content
    assert b",all,2,1,0.40,0.400000,0.700000,0.690000,0.710000," in content
    write_csv(path, table)
    assert path.read_bytes() == content
    back = read_summary(tmp_path)
    assert list(back["point"].dropna()) == ["0.40"]
    assert back["accuracy"].tolist() == pytest.approx(table["accuracy"].tolist(), abs=5e-7)


def compared(**changes: Any) -> dict[str, Any]:
    blank = dict.fromkeys(COLUMNS)
    common = {"model": "m", "lineage": "paper", "source": "table 1", "options": "{}"}
    common |= {"subset": "a+b", "task": "average", "split": "test", "metric": "accuracy"}
    return {**blank, **common, **changes}


def test_published_numbers_stand_in_the_line_they_answer() -> None:
    summary = summarise(grid(), selected(), TASKS)
    run = {"mode": "standard", "seed": 0}
    numbers = [
        # What is not the mean accuracy on test over these tasks has no line.
        compared(method="zeroshot", task="a", published=0.9),
        compared(method="zeroshot", subset="a+b+c", published=0.9),
        compared(method="zeroshot", split="val", published=0.9),
        compared(method="zeroshot", published=0.31, published_low=0.31, published_high=0.31),
        compared(method="expert", published=0.88, published_low=0.87, published_high=0.88, **run),
        compared(method="expert", published=0.87, published_low=0.87, published_high=0.88, **run),
        compared(method="expert", mode="linear", seed=0, published=0.5),
        compared(method="ties", point="0.30", published=0.1, **run),
        compared(method="ties", metric="normalized", point="0.40", published=0.1, **run),
        compared(method="ties", point="0.40", published=0.75, published_low=0.75, **run),
    ]
    table = with_published(summary, pd.DataFrame(numbers).astype({"seed": "Int64"}), TASKS)
    assert list(table.columns) == [*LEADING, *PUBLISHED, "b", "a"]
    pd.testing.assert_frame_equal(table.drop(columns=[*PUBLISHED]), summary)
    assert line(table, "zeroshot", 0)["published"] == 0.31
    assert line(table, "zeroshot", 0)["difference"] == pytest.approx(0.30 - 0.31)
    assert line(table, "zeroshot", 0)["published_from"] == "paper: table 1"
    expert = line(table, "expert", 1)
    assert expert["published"] == 0.88  # the first one; the others are told as a range
    assert expert["published_from"] == "paper: table 1 (this lineage: 87 to 88 %)"
    assert line(table, "all", 2)["published"] == 0.75
    assert line(table, "all", 2)["difference"] == pytest.approx(0.70 - 0.75)
    for size in (1, 2):
        assert pd.isna(line(table, "size", size)["published"])


def test_without_a_counterpart_the_published_columns_are_empty() -> None:
    summary = summarise(grid(), selected(), TASKS)
    nothing = pd.DataFrame(columns=[*COLUMNS]).astype({"seed": "Int64"})
    table = with_published(summary, nothing, TASKS)
    assert table[[*PUBLISHED]].isna().all(axis=None)
