"""Task vectors that are easy to get wrong, with numbers that rounding does not touch."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.store.weights import State

Arrays: TypeAlias = dict[str, dict[str, NDArray[np.float64]]]
"""task -> name -> values."""

SHAPES = {"a": (3, 4), "b": (5,), "c": (), "frozen": (2, 2)}


@st.composite
def task_vectors(draw: st.DrawFn) -> Arrays:
    """Draw eighths between -2 and 2: exact zeros, equal magnitudes, opposite signs are frequent."""
    entries = st.integers(-16, 16).map(lambda eighths: eighths / 8)
    tasks = draw(st.sampled_from([["x"], ["x", "y"], ["x", "y", "z"], ["w", "x", "y", "z"]]))
    found = {
        task: {
            name: draw(hnp.arrays(np.float64, shape, elements=entries))
            if name != "frozen"
            else np.zeros(shape)
            for name, shape in SHAPES.items()
        }
        for task in tasks
    }
    if draw(st.booleans()):
        found[tasks[0]]["a"][:] = 0
    return found


def states(arrays: Arrays) -> dict[str, State]:
    """Return arrays as float32 vectors, which they are exactly."""
    return {
        task: {name: torch.from_numpy(np.array(a, np.float32)) for name, a in vector.items()}
        for task, vector in arrays.items()
    }


def models(
    method: str,
    arrays: Arrays,
    scale: float = 1.0,
    point: dict[str, float] | None = None,
    **options: Any,
) -> dict[str | None, dict[str, NDArray[np.float64]]]:
    """Return what a method makes of a float64 base of zeros: what it adds, by task."""
    recipe, vectors, tasks = MergeRecipe.of(method, options), states(arrays), sorted(arrays)
    base = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    prepared = recipe.prepare(base, Sources(vectors.__getitem__), tasks, point)
    asked: list[str | None] = [*tasks] if recipe.per_task else [None]
    return {
        task: {n: t.numpy() for n, t in recipe.apply(base, prepared, scale, task=task).items()}
        for task in asked
    }
