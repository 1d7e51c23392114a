"""The base's Fisher information is the diagonal of J^T Lambda J of explicit Jacobians, task by task."""

from __future__ import annotations

import pytest
import torch

from taskgrid.plugins.cards import StatisticCard, statistic_card
from taskgrid.plugins.options import Option
from taskgrid.statistics.computing import add_up, compute_statistic
from tests.unit.example_grid import World, world
from tests.unit.example_statistics import examples
from tests.unit.statistics.test_fisher import agree, expected, jacobians_of


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b"), val=4)


def test_the_sum_over_tasks_of_squares_at_theta_0(small: World) -> None:
    found, wanted = [], []
    for task, own in small.tasks.items():
        found.append(
            compute_statistic(
                "fisher_base",
                small.card,
                small.base,
                own.head,
                examples(small, task),
                {"labels": "exact"},
            )
        )
        # Of a softmax, diag(J^T Lambda J) is the mean over classes of squared gradients.
        shares, each = jacobians_of(small, small.base, task)
        wanted.append(expected(shares, each))
    total = add_up(found)
    assert int(total["images"]) == 8 and total["images"].dtype == torch.int64
    assert agree(total, {key: wanted[0][key] + wanted[1][key] for key in wanted[0]})


def test_the_card_says_whose_images() -> None:
    card = statistic_card("fisher_base")
    assert card.per == "base"
    assert card.options["of"].choices == ("control", "trained", "all")
    some = {"images": Option(default=1, about="x"), "split": Option(default="train", about="x")}
    with pytest.raises(ValueError, match="needs the option 'of'"):
        StatisticCard(title="x", options=some, per="base")
