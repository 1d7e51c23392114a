"""Statistics of the tiny world's experts, for tests of what computes and of what uses them."""

from __future__ import annotations

from typing import Any

import numpy as np

from taskgrid.statistics.computing import compute_statistic
from taskgrid.statistics.seam import Examples
from taskgrid.store.weights import State
from tests.unit.example_grid import World


def examples(small: World, task: str) -> Examples:
    """The validation images of a task, with their labels."""
    pixels, labels = small.tasks[task].val
    return Examples(pixels, np.asarray(labels, dtype=np.int64))


def computed(name: str, small: World, task: str, **options: Any) -> State:
    """A statistic of a task's expert on its validation images."""
    return compute_statistic(
        name,
        small.card,
        small.experts[task],
        small.tasks[task].head,
        examples(small, task),
        options,
    )
