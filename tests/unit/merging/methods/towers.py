"""Vectors of a small tower's tensors, wide, tall and awkward, as spectral methods are tested on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources

Array: TypeAlias = NDArray[np.float64]

QKV = "transformer.resblocks.0.attn.in_proj_weight"
SHAPES = {
    QKV: (24, 8),
    "transformer.resblocks.0.attn.out_proj.weight": (8, 8),
    "transformer.resblocks.0.mlp.c_proj.weight": (8, 32),
    "positional_embedding": (10, 8),
    "proj": (8, 6),
    "frozen": (7, 5),
    "once": (9, 6),
    "conv1.weight": (4, 3, 2, 2),
    "ln_pre.bias": (8,),
}
MATRICES = [key for key, shape in SHAPES.items() if len(shape) == 2]
TASKS = ("a", "b", "c")


def vectors(tasks: Sequence[str] = TASKS) -> dict[str, dict[str, Array]]:
    """Return float32 values: one tensor frozen in all, one moved by all but the first, exact zeros."""
    found = {}
    for place, task in enumerate(tasks):
        random = np.random.default_rng(place)
        found[task] = {
            key: random.normal(size=shape).astype(np.float32).astype(np.float64)
            for key, shape in SHAPES.items()
        }
        found[task]["frozen"][:] = 0
        found[task][QKV][place, ::2] = 0
    found[tasks[0]]["once"][:] = 0
    # Equal magnitudes of opposite sign.
    if len(tasks) > 1:
        found[tasks[1]]["proj"][:2] = -found[tasks[0]]["proj"][:2]
    return found


def added(
    method: str,
    given: dict[str, dict[str, Array]],
    scale: float = 1.0,
    point: dict[str, float] | None = None,
    **options: Any,
) -> dict[str, Array]:
    """Return what a method adds to a float64 base of zeros."""
    recipe, tasks = MergeRecipe.of(method, options), sorted(given)
    states = {
        task: {key: torch.from_numpy(value.astype(np.float32)) for key, value in vector.items()}
        for task, vector in given.items()
    }
    base = {key: torch.zeros(shape, dtype=torch.float64) for key, shape in SHAPES.items()}
    prepared = recipe.prepare(base, Sources(states.__getitem__), tasks, point)
    return {key: t.numpy() for key, t in recipe.apply(base, prepared, scale).items()}


def expected(
    given: dict[str, dict[str, Array]],
    merge: Callable[[list[Array]], Array],
    split: bool = False,
) -> dict[str, Array]:
    """Return what a formula for matrices adds, and the means of all other tensors."""
    found = {}
    for key, shape in SHAPES.items():
        values = [vector[key] for vector in given.values()]
        if len(shape) != 2:
            found[key] = np.mean(values, axis=0)
        elif split and key == QKV:
            thirds = [[value[row : row + 8] for value in values] for row in (0, 8, 16)]
            found[key] = np.concatenate([merge(third) for third in thirds])
        else:
            found[key] = merge(values)
    return found


def assert_close(found: dict[str, Array], wanted: dict[str, Array], scale: float = 1.0) -> None:
    """Compare all tensors to 1e-9."""
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], scale * value, rtol=0, atol=1e-9, err_msg=key)
