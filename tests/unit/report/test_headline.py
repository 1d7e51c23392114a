"""The result is that of the tables, in order, with what is to be known about it."""

from __future__ import annotations

from functools import cache

import pandas as pd

from taskgrid.analysis.summary import summarise
from taskgrid.plugins.storage import Tower
from taskgrid.report.headline import headline, sentences
from taskgrid.report.sheets import Sheet
from tests.unit.example_report import best
from tests.unit.example_tables import Example, all_subsets, example, task_names

TASKS = task_names(4)
example = cache(example)


def given() -> Example:
    return example(tasks=4, seeds=(0,), methods=("task_arithmetic", "average", "ties"))


def summary(of: Example) -> pd.DataFrame:
    return summarise(of.grid, of.selected, TASKS)


def column(shown: Sheet, name: str) -> list[str]:
    place = [head.text for head in shown.heads].index(name)
    return [row.cells[place].text for row in shown.rows]


def test_the_numbers_are_those_of_the_chosen_points_best_first() -> None:
    shown = headline(summary(given()), TASKS)
    merges = [row for row in shown.rows if row.kind != "reference"]
    chosen = best(given().selected, 4)
    assert [row.cells[1].text for row in merges] == list(chosen["point"])
    for row, point in zip(merges, chosen.itertuples(), strict=True):
        accuracy, normalised = row.cells[2:4]
        assert accuracy.key == f"{point.test_accuracy:.6f}"
        assert accuracy.text == f"{100 * point.test_accuracy:.1f}"
        assert normalised.key == f"{point.test_normalized:.6f}"
        assert accuracy.beside == (
            f"{100 * point.test_accuracy_low:.1f} to {100 * point.test_accuracy_high:.1f}"
        )
    assert [row.kind for row in merges] == ["best", "", ""]


def test_it_stands_between_the_experts_and_the_base() -> None:
    shown, test = headline(summary(given()), TASKS), given().grid.query("split == 'test'")
    own = test[(test["method"] == "expert") & (test["subset"] == test["task"])]["accuracy"].mean()
    zero = test[test["method"] == "zeroshot"]["accuracy"].mean()
    kinds = {row.cells[0].text: row for row in shown.rows if row.kind == "reference"}
    assert kinds["experts, each on its own task"].cells[2].key == f"{own:.6f}"
    assert kinds["zero-shot"].cells[2].key == f"{zero:.6f}"
    gains = column(shown, "over zero-shot")
    top = best(given().selected, 4)["test_accuracy"].iloc[0]
    assert f"{100 * (top - zero):+.1f}" in gains and gains[-1] == ""


def test_tasks_are_columns_in_their_order() -> None:
    shown = headline(summary(given()), TASKS)
    assert [head.text for head in shown.heads[-4:]] == [f"{task} [%]" for task in TASKS]


def test_several_runs_are_told_apart_and_each_model_has_its_best() -> None:
    of = example(tasks=4, models=("one", "two"), seeds=(0, 1))
    shown = headline(summary(of), TASKS)
    assert column(shown, "model") == sorted(column(shown, "model"))
    assert set(column(shown, "seed")) == {"0", "1"}
    assert "mode" not in [head.text for head in shown.heads]
    assert [row.kind for row in shown.rows].count("best") == 2
    said = list(sentences(summary(of), TASKS))
    assert [text.partition(":")[0] for text in said] == ["one", "two"]


def test_methods_that_have_seen_test_images_are_marked() -> None:
    shown = headline(summary(given()), TASKS, {("average", "{}")})
    assert [name for name in column(shown, "method") if "†" in name] == ["average †"]


def test_where_no_merge_is_of_all_tasks_the_largest_are_shown() -> None:
    pairs = [subset for subset in all_subsets(TASKS) if len(subset) < 3]
    of = example(tasks=4, seeds=(0,), subsets=tuple(pairs))
    shown = headline(summary(of), TASKS)
    assert set(column(shown, "tasks merged")) == {"2, mean of 6", ""}
    assert "best" not in {row.kind for row in shown.rows}
    # What is about fewer tasks stands below, and has no gain over the base of all.
    assert [row.kind for row in shown.rows] == ["reference", "reference", "", ""]
    assert column(shown, "over zero-shot")[2:] == ["", ""]
    (said,) = sentences(summary(of), TASKS)
    assert said.startswith("No merge of all 4 tasks was chosen")


def test_what_is_kept_beside_the_base_is_shown_where_a_method_keeps_more_than_a_model() -> None:
    assert "bits per weight" not in [head.text for head in headline(summary(given()), TASKS).heads]
    of = example(tasks=4, seeds=(0,), methods=("average", "logit_ensemble"))
    known = summarise(of.grid, of.selected, TASKS, towers={"small-clip": Tower(1000, 64)})
    shown = headline(known, TASKS)
    kept = dict(zip(column(shown, "method"), column(shown, "bits per weight"), strict=True))
    assert float(kept["logit ensemble"]) > 0 and kept["average"] == "0"
    best_of_all, best_model = sentences(known, TASKS)
    assert "logit ensemble does best on test" in best_of_all
    assert best_model.startswith("Of those that leave a single model, average at λ = ")
    # Its coefficient is no lambda.
    of_method = dict(zip(column(shown, "method"), column(shown, "λ"), strict=True))
    assert of_method["logit ensemble"] == "" and of_method["average"] != ""


def test_the_sentence_says_the_result() -> None:
    (said,) = sentences(summary(given()), TASKS)
    top = best(given().selected, 4).iloc[0]
    assert f"at λ = {top['point']} does best on test: {100 * top['test_accuracy']:.1f} %" in said
    assert f"{100 * top['test_normalized']:.1f} % of what the tasks' own experts reach" in said
