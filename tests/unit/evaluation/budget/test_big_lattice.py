"""Twenty tasks: hundreds of a million subsets, from the design to chosen points."""

from __future__ import annotations

import pytest

from taskgrid.evaluation import evaluate_grid
from taskgrid.lattice.designs import Design, Sample
from taskgrid.lattice.subsets import subset_of_number
from tests.unit.example_grid import world

TASKS = tuple(f"t{i:02d}" for i in range(20))


@pytest.mark.parametrize(("evaluation", "total"), [("plain", 200), ("tangent", 100)])
def test_sampled_subsets_of_twenty_tasks(evaluation: str, total: int) -> None:
    small = world(TASKS, val=2, test=2)
    numbers = Design(sample=Sample(total=total)).numbers(TASKS)
    subsets = [subset_of_number(number, TASKS) for number in numbers]
    frame = evaluate_grid(
        small.base,
        small.card,
        small.tasks,
        experts=small.experts,
        subsets=subsets,
        lambdas=[0.3],
        evaluation=evaluation,
        batch_size=2,
    )
    merged = frame[frame["method"] == "task_arithmetic"]
    assert merged["subset"].nunique() == total
    assert set(merged["size"]) == set(range(1, 21))
    chosen = merged[merged["role"] == "selected"]
    assert len(chosen) == sum(map(len, subsets))
