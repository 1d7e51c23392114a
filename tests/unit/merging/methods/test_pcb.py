"""PCB-Merging against its equations, in NumPy on the whole vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors

Vector = NDArray[np.float64]


def spread(x: Vector) -> Vector:
    return (x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else np.zeros_like(x)


def cut(x: Vector, low: float, high: float) -> Vector:
    ordered, n = np.sort(x), len(x)
    return np.minimum(np.maximum(x, ordered[int(n * low)]), ordered[int(n * (1 - high) - 1)])


def by_hand(
    vectors: list[Vector], ratio: float = 0.1, clamp: float = 1e-4
) -> tuple[Vector, Vector]:
    """The equations, and how far from them roundings may lead.

    Where all weights of an entry are near the cut, they are differences of numbers that are nearly equal,
    and then divided by their sum.
    """
    taus = np.stack(vectors)
    sizes = np.stack([cut(np.abs(tau), clamp, clamp) for tau in taus])
    within = np.stack([np.exp(len(taus) * spread(size) ** 2) for size in sizes])
    balances = [cut(p, 1 - ratio, 0) for p in within * np.tanh(taus * taus.sum(axis=0))]
    weights = np.stack([spread(p) for p in balances])
    total = np.maximum(weights.sum(axis=0), 1e-12)
    found: Vector = (np.sign(taus) * sizes * weights).sum(axis=0) / total
    lost = sum(np.abs(p).max() / np.ptp(p) for p in balances if np.ptp(p) > 0)
    return found, 64 * np.finfo(float).eps * lost * sizes.max() / total


def normal(random: np.random.Generator) -> dict[str, Vector]:
    """Numbers that float32 holds."""
    return {
        name: np.asarray(random.normal(size=shape)).astype(np.float32).astype(np.float64)
        for name, shape in SHAPES.items()
    }


def flat(state: dict[str, Vector]) -> Vector:
    return np.concatenate([state[name].ravel() for name in SHAPES])


@pytest.mark.parametrize("tasks", ["x", "xy", "vwxyz"])
@pytest.mark.parametrize("options", [{}, {"ratio": 0.5}, {"clamp": 0.1}, {"ratio": 1, "clamp": 0}])
def test_the_equations_on_the_whole_vector(tasks: str, options: dict[str, float]) -> None:
    random = np.random.default_rng(len(tasks))
    arrays = {task: normal(random) for task in tasks}
    (found,) = models("pcb", arrays, 0.5, **options).values()
    expected, _ = by_hand([flat(vector) for vector in arrays.values()], **options)
    np.testing.assert_allclose(flat(found), 0.5 * expected, rtol=1e-10, atol=1e-14)


@settings(max_examples=60)
@given(
    arrays=task_vectors(),
    ratio=st.sampled_from([0.1, 0.5, 1.0]),
    clamp=st.sampled_from([0.0, 1e-4, 0.2]),
    pointed=st.booleans(),
)
def test_awkward_vectors(arrays: Arrays, ratio: float, clamp: float, pointed: bool) -> None:
    point = dict(zip(sorted(arrays), (0.5, -1.0, 2.0, 0.0), strict=False)) if pointed else None
    (found,) = models("pcb", arrays, point=point, ratio=ratio, clamp=clamp).values()
    vectors = [flat(arrays[task]) * (point or {}).get(task, 1.0) for task in sorted(arrays)]
    expected, rounding = by_hand(vectors, ratio, clamp)
    np.testing.assert_array_less(np.abs(flat(found) - expected), rounding + 1e-12)


def test_a_task_that_did_not_change_counts_for_nothing() -> None:
    random = np.random.default_rng(3)
    own = normal(random)
    still = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    (found,) = models("pcb", {"x": own, "y": still}).values()
    assert np.isfinite(flat(found)).all() and flat(found).any()
    (none,) = models("pcb", {"x": still, "y": still}).values()
    assert not flat(none).any()


@pytest.mark.parametrize(("option", "value"), [("ratio", 0), ("ratio", 1.5), ("clamp", 0.5)])
def test_wrong_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"option '{option}' of merge method 'pcb'"):
        MergeRecipe.of("pcb", {option: value})
    assert MergeRecipe.of("pcb", {}).scope == "model"
