"""Points with coefficients of their own, and control tasks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from taskgrid.config import Experiment, parse_config
from taskgrid.config.named import point_tasks
from taskgrid.errors import ConfigError
from tests.unit.example_config import GOOD, changed

CONTROL = {"name": "z", "source": "folder", "path": "data/z", "expert": False}


def test_points_are_swept_beside_the_lambdas_on_their_own_subset_alone() -> None:
    points = [{"b": -0.5, "a": 0.3}, {"a": [0.1, 0.2], "c": [0.1, 0.2]}, {"a": 0.5}]
    found = Experiment(parse_config(changed("grid/points", points)))
    sweep = ("0.00", "0.30", "1.00")
    assert found.points("task_arithmetic", "a+b") == (*sweep, "a:0.30,b:-0.50")
    # Equal coefficients are a point of the sweep: they are spelt as such, and stand in order.
    assert found.points("task_arithmetic", ("c", "a")) == (
        "0.00", "0.10", "0.20", "0.30", "1.00", "a:0.10,c:0.20", "a:0.20,c:0.10",
    )  # fmt: skip
    assert found.points("task_arithmetic", "a") == ("0.00", "0.30", "0.50", "1.00")
    assert found.points("task_arithmetic", "b+c") == found.points("task_arithmetic", "b") == sweep


def test_a_product_grid_has_every_combination() -> None:
    values = {"a": [0.1, 0.2, 0.3], "b": [-1, 0, 1]}
    found = Experiment(parse_config(changed("grid/points", [values])))
    expected = {f"a:{a:.2f},b:{b:.2f}" for a, b in itertools.product(*values.values())}
    assert set(found.points("task_arithmetic", "a+b")) == expected | {"0.00", "0.30", "1.00"}


def test_a_methods_own_points_take_the_place_of_the_grids() -> None:
    raw = changed("grid/points", [{"a": 0.1, "b": 0.2}])
    raw["grid"]["methods"] = [
        "average",
        {"name": "task_arithmetic", "points": [{"a": 0.4, "b": 0.2}]},
    ]
    found = Experiment(parse_config(raw))
    assert found.points("average", "a+b")[3:] == ("a:0.10,b:0.20",)
    assert found.points("task_arithmetic", "a+b")[3:] == ("a:0.40,b:0.20",)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([{}], r"grid.points\[0\]: a point needs a coefficient"),
        ([{"a": "0.3"}], r"grid.points\[0\].a is '0.3': write a number, or a list of numbers"),
        ([{"a": []}], r"grid.points\[0\].a: write a number, or a list"),
        ([{"a": 0.1234567}], "more than 6 decimals"),
        ([{"a": [0.5] * 300, "b": [0.5] * 300}], "90000 points, more than 65536"),
        ([{"a": 1, "y": 1}], "grid.points names task 'y', which is not in tasks: a, b, c"),
        ([{"a": 1, "z": 1}], r"grid.points names task 'z', a control task \(expert: false\)"),
    ],
)
def test_points_that_mean_nothing_are_refused(points: Any, words: str) -> None:
    raw = changed("grid/points", points)
    raw["tasks"] = [*raw["tasks"], CONTROL]
    with pytest.raises(ConfigError, match=words):
        parse_config(raw)


def test_points_of_a_subset_that_is_not_on_the_grid_are_refused() -> None:
    raw = changed("grid/points", [{"a": 0.1, "b": 0.2}])
    raw["grid"]["subsets"] = {"sizes": [1]}
    with pytest.raises(
        ConfigError, match=r"has points of a\+b, which is not on the grid; add it to"
    ):
        Experiment(parse_config(raw)).check()


def test_points_are_of_subsets_that_a_method_merges() -> None:
    raw = changed("grid/points", [{"a": 0.1, "b": 0.2}])
    raw["grid"]["subsets"] = {"sizes": [1]}
    raw["grid"]["methods"] = ["task_arithmetic", {"name": "ties", "subsets": {"sizes": [2]}}]
    with pytest.raises(ConfigError, match="data/a does not exist"):
        Experiment(parse_config(raw)).check()
    raw["grid"]["methods"][0] = {"name": "task_arithmetic", "points": [{"a": 0.1, "b": 0.2}]}
    with pytest.raises(
        ConfigError, match=r"method 'task_arithmetic' has points of a\+b, which is not"
    ):
        Experiment(parse_config(raw)).check()


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_control_task_changes_no_number_wherever_it_stands(place: int) -> None:
    raw = changed("grid/block_size", 4)
    plain = Experiment(parse_config(raw))
    raw["tasks"].insert(place, CONTROL)
    found = Experiment(parse_config(raw))
    assert found.tasks == tuple(task["name"] for task in raw["tasks"])
    assert found.trained == plain.trained == ("a", "b", "c")
    assert found.numbers == plain.numbers
    for method in plain.methods:
        assert found.blocks(method) == plain.blocks(method)
        for block in plain.blocks(method):
            assert found.subsets(method, block) == plain.subsets(method, block)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (changed("tasks", [CONTROL]), "all tasks are control tasks"),
        (changed("tasks", [{**CONTROL, "finetune": {"lr": 1}}]), "'z' has no expert to train"),
        (
            {
                **changed("tasks", [*GOOD["tasks"], CONTROL]),
                "grid": {**GOOD["grid"], "subsets": {"include": [["a", "z"]]}},
            },
            "grid.subsets.include names task 'z', a control task",
        ),
    ],
)
def test_a_control_task_is_in_no_subset(raw: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(raw)


def test_a_control_task_has_no_experts_to_ask_for() -> None:
    found = Experiment(parse_config(changed("tasks", [*GOOD["tasks"], CONTROL])))
    with pytest.raises(ConfigError, match="there is no task 'z'; there are: a, b, c"):
        point_tasks(found, "tiny", "standard", "0", "task_arithmetic", "a+z", "0.30")
    assert point_tasks(
        found, "tiny", "standard", "0", "task_arithmetic", "a+b", "a:0.30,b:0.10"
    ) == (
        "a",
        "b",
    )
