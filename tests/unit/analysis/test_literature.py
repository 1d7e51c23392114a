"""The literature's numbers are what was printed."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from taskgrid.analysis.literature import (
    COLUMNS as NUMBERS,
)
from taskgrid.analysis.literature import (
    flag_words,
    lineages,
    model_titles,
    published_model,
    read_numbers,
    task_sets,
)
from taskgrid.errors import ConfigError
from taskgrid.plugins.resources import resource_path

EIGHT = ("sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
SETTING = ["lineage", "source", "model", "mode", "method", "options", "lambda", "split", "metric"]


def value(numbers: pd.DataFrame, **where: str) -> float:
    rows = numbers
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    (found,) = set(rows["value"])
    return float(found)


def test_every_file_is_a_lineage_and_says_what_its_columns_promise(numbers: pd.DataFrame) -> None:
    files = {path.stem for path in resource_path("published").glob("*.csv")}
    assert files == set(lineages())
    assert list(numbers.columns) == [*NUMBERS, "printed"]
    tasks = {task for members in task_sets().values() for task in members} | {"imagenet"}
    allowed = {
        "lineage": files,
        "study": {"", "addition", "negation"},
        "model": set(model_titles()),
        "tasks": {*task_sets(), "pairs", "1"},
        "task": tasks | {"average"},
        "split": {"val", "test"},
        "metric": {"accuracy", "normalized"},
    }
    for column, words in allowed.items():
        assert set(numbers[column]) <= words, column
    assert {flag for text in numbers["flags"] for flag in text.split("+") if flag} == set(
        flag_words()
    )
    assert numbers["value"].between(0, 100.05).all()  # 100.05: normalised, above the experts
    assert (numbers["source"] != "").all()
    rules = set(numbers["lambda"]) - {"", "val", "unstated"}
    assert rules and all(f"{float(rule):.2f}" == rule for rule in rules)
    assert all(isinstance(json.loads(text), dict) for text in set(numbers["options"]))
    assert not numbers.duplicated([*SETTING, "study", "tasks", "task"]).any()


# The values of the regression oracle, typed from its summary: tangent protocol, per task.
ORACLE = """
clip-vit-b-32 zeroshot           59.73 43.99 45.19 32.56 48.25 60.65 63.18 31.61 48.14
clip-vit-b-32 expert   standard  78.26 78.94 98.89 99.14 99.65 95.94 75.40 97.38 90.45
clip-vit-b-32 expert   linear    76.32 80.00 98.00 93.69 99.33 94.57 76.39 79.96 87.28
clip-vit-b-16 zeroshot           64.61 45.11 55.78 43.34 51.79 65.76 65.50 51.98 55.48
clip-vit-b-16 expert   standard  84.14 81.91 98.93 98.84 99.69 96.59 78.12 97.70 91.99
clip-vit-b-16 expert   linear    85.28 82.77 98.15 94.13 99.17 95.60 78.82 83.16 89.63
clip-vit-l-14 zeroshot           77.75 55.32 61.33 50.55 76.36 71.05 68.28 58.45 64.89
clip-vit-l-14 expert   standard  91.67 84.73 99.81 99.30 99.77 97.14 81.98 97.97 94.05
clip-vit-l-14 expert   linear    89.74 83.35 98.52 95.93 99.35 96.49 82.55 91.22 92.14
"""
ORACLE_TASKS = ("cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn", "average")


@pytest.mark.parametrize("line", ORACLE.strip().splitlines())
def test_the_regression_oracle_is_there_to_the_last_digit(numbers: pd.DataFrame, line: str) -> None:
    model, method, *rest = line.split()
    mode = rest.pop(0) if method == "expert" else ""
    atlas = numbers[numbers["source"].str.startswith("fredzzhang/atlas")]
    assert len(rest) == len(ORACLE_TASKS)
    for task, printed in zip(ORACLE_TASKS, rest, strict=True):
        found = value(atlas, model=model, method=method, mode=mode, task=task, split="test")
        assert found == pytest.approx(float(printed), abs=0.0051), task


def test_numbers_that_tell_the_lineages_apart(numbers: pd.DataFrame) -> None:
    b32 = numbers[numbers["model"] == "clip-vit-b-32"]
    expert = b32[b32["method"] == "expert"]
    zeroshot = b32[b32["method"] == "zeroshot"]
    merged = b32[b32["task"] == "average"]
    # The bug in the test split of DTD, and its repair.
    assert value(expert, lineage="tall_v1", task="dtd") == 97.98
    assert value(expert, lineage="tall_masks", task="dtd") == 79.20
    assert value(merged, lineage="tall_v1", method="tsv_m", tasks="8") == 85.87
    assert value(merged, lineage="tanganke", method="tsv_m", tasks="8") == 83.06
    # EMNIST: digits in one lineage, letters in the other; other class names of the pets.
    assert value(zeroshot, lineage="tall_v1", task="emnist_digits") == 17.2
    assert value(zeroshot, lineage="tanganke", task="emnist_letters") == 11.98
    assert value(zeroshot, lineage="tall_masks", task="oxford_iiit_pet") == 87.49
    assert value(zeroshot, lineage="tanganke", task="oxford_iiit_pet") == 83.32
    # Re-runs of one method in one protocol span three points.
    same = merged[(merged["method"] == "task_arithmetic") & (merged["mode"] == "standard")]
    same = same[(same["lineage"] == "tangent") & (same["lambda"] == "val")]
    same = same[(same["metric"] == "accuracy") & (same["study"] == "addition")]
    assert sorted(same["value"]) == [70.32, 70.4, 73.5]
    # The control of task negation is reported on two splits.
    control = numbers[(numbers["task"] == "imagenet") & numbers["source"].str.contains("atlas")]
    by_split = control.groupby("split")["value"].apply(list)
    assert by_split["test"] == [63.35, 68.33, 75.54]
    assert by_split["val"] == [66.7, 69.3, 77.46]


def test_averages_are_the_means_of_their_tasks_or_say_that_they_are_not(
    numbers: pd.DataFrame,
) -> None:
    checked = 0
    for _, rows in numbers[numbers["study"] != "negation"].groupby(SETTING, sort=False):
        tasks = rows[rows["task"] != "average"]
        for line in rows[rows["task"] == "average"].to_dict("records"):
            own = tasks[tasks["tasks"] == line["tasks"]].set_index("task")["value"]
            known = own if len(own) else tasks.drop_duplicates("task").set_index("task")["value"]
            members = task_sets().get(line["tasks"], ("none",))
            if not set(members) <= set(known.index):
                continue
            mean = known[list(members)].mean()
            assert (abs(mean - line["value"]) < 0.1) == (line["flags"] != "misprint"), line
            checked += 1
    assert checked > 100


def test_values_are_whole_numbers_of_images(numbers: pd.DataFrame) -> None:
    rows = numbers[numbers["images"].notna()]
    # Two printed decimals tell one image from the next up to some thousand images.
    exact = rows[(rows["images"] < 10_000) & ((100 * rows["value"]) % 10 != 0)]
    assert len(exact) > 300
    for line in exact.to_dict("records"):
        images = int(line["images"])
        correct = round(line["value"] * images / 100)
        step = 0.051 if line["source"].endswith("clip_vit.md") else 0.0051
        assert 100 * correct / images == pytest.approx(line["value"], abs=step), line


def test_flags_stand_where_they_must(numbers: pd.DataFrame) -> None:
    flags = numbers["flags"].str
    assert flags.contains("transductive")[numbers["method"].str.startswith("adamerging")].all()
    bugged = (numbers["lineage"] == "tall_v1") & (numbers["method"] != "zeroshot")
    bugged &= numbers["task"].isin(("dtd", "average"))
    assert (flags.contains("dtd_bug") == bugged).all()
    sun = numbers[(numbers["lineage"] == "task_vectors") & (numbers["value"] == 79.2)]
    assert set(sun[sun["task"] == "sun397"]["flags"]) == {"misprint"}


def test_an_unknown_lineage_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"lineage 'tangnt'; did you mean 'tangent'.*tall_masks"):
        read_numbers(["tangnt"])
    assert read_numbers([]).empty


def test_only_openai_weights_with_quickgelu_have_published_numbers() -> None:
    assert published_model("ViT-B-32-quickgelu", "openai") == "clip-vit-b-32"
    assert published_model("ViT-L-14-quickgelu", "openai") == "clip-vit-l-14"
    assert published_model("ViT-B-32", "openai") is None  # another activation
    assert published_model("ViT-B-32-quickgelu", "laion400m_e32") is None
    assert published_model("taskgrid-vit-4", "s0") is None
