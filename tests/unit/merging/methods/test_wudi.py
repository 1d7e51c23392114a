"""WUDI: its closed form against L-BFGS on the loss, its steps against Adam's formula in NumPy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from taskgrid.errors import ConfigError
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.merging.walks import walk
from tests.unit.merging.methods.towers import (
    MATRICES,
    QKV,
    SHAPES,
    Array,
    added,
    assert_close,
    expected,
    vectors,
)

LINEAR = [key for key in MATRICES if "resblocks" in key]
WIDE = "transformer.resblocks.0.mlp.c_proj.weight"


def loss(flat: Array, matrices: list[Array]) -> tuple[float, Array]:
    """The loss and its gradient, from the definition: products with each task's rows."""
    merged = flat.reshape(matrices[0].shape)
    total, slope = 0.0, np.zeros_like(merged)
    for matrix in matrices:
        if not matrix.any():
            continue
        products, size = (merged - matrix) @ matrix.T, np.sum(matrix**2)
        total += float(np.sum(products**2)) / size
        slope += 2 * products @ matrix / size
    return total, slope.ravel()


def optimum(matrices: list[Array]) -> Array:
    """Where L-BFGS gets to; it starts from zero, and so never leaves the rows of the tasks."""
    found = minimize(
        loss,
        np.zeros(matrices[0].size),
        args=(matrices,),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-10, "maxcor": 50},
    )
    return np.asarray(found.x).reshape(matrices[0].shape)


def adam(matrices: list[Array], steps: int = 300, lr: float = 1e-5) -> Array:
    found = np.sum(matrices, axis=0)
    m, v = np.zeros_like(found), np.zeros_like(found)
    for t in range(1, steps + 1):
        _, g = loss(found.ravel(), matrices)
        g = g.reshape(found.shape)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        found = found - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return found


@pytest.mark.parametrize("tasks", ["a", "ab", "abc"])
@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_the_closed_form_is_the_optimum(tasks: str, qkv: str) -> None:
    given = vectors(tasks)
    wanted = expected(given, optimum, split=qkv == "split")
    found = added("wudi", given, 0.7, solver="closed_form", ridge=0, tensors="matrices", qkv=qkv)
    for key in SHAPES:
        np.testing.assert_allclose(found[key], 0.7 * wanted[key], rtol=0, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("key", [QKV, "proj", WIDE])
def test_nothing_near_the_closed_form_is_better(key: str) -> None:
    given = vectors()
    matrices = [vector[key] for vector in given.values()]
    found = added("wudi", given, solver="closed_form", ridge=0, tensors="matrices")[key]
    least, slope = loss(found.ravel(), matrices)
    assert np.abs(slope).max() < 1e-9
    assert least < loss(adam(matrices).ravel(), matrices)[0]


@pytest.mark.parametrize("ridge", [1e-8, 0.3])
@pytest.mark.parametrize("key", [QKV, WIDE])
def test_the_ridge_is_added_to_the_sum(ridge: float, key: str) -> None:
    given = vectors()
    reads = {task: vector[key].T @ vector[key] for task, vector in given.items()}
    reads = {task: square / np.trace(square) for task, square in reads.items()}
    pulls = sum(given[task][key] @ reads[task] for task in given)
    wanted = pulls @ np.linalg.inv(sum(reads.values()) + ridge * np.eye(len(reads["a"])))
    found = added("wudi", given, solver="closed_form", ridge=ridge)[key]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("tasks", ["ab", "abc"])
@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_the_papers_steps(tasks: str, qkv: str) -> None:
    given = vectors(tasks)
    wanted = expected(given, adam, split=qkv == "split")
    assert_close(added("wudi", given, 1.3, tensors="matrices", qkv=qkv), wanted, 1.3)


def test_other_steps() -> None:
    given = vectors()
    wanted = expected(given, partial(adam, steps=7, lr=0.02))
    assert_close(added("wudi", given, steps=7, lr=0.02, tensors="matrices"), wanted)
    assert_close(
        added("wudi", given, steps=0, tensors="matrices"),
        expected(given, lambda matrices: np.sum(matrices, axis=0)),
    )


@pytest.mark.parametrize("solver", ["adam", "closed_form"])
def test_which_tensors_are_merged_so(solver: str) -> None:
    given = vectors()
    linear, matrices, whole = (
        added("wudi", given, solver=solver, tensors=kind) for kind in ("linear", "matrices", "all")
    )
    kernel = "conv1.weight"
    for key in SHAPES:
        assert key in LINEAR or not linear[key].any(), key
        assert np.array_equal(linear[key], matrices[key]) == (key in [*LINEAR, "frozen"]), key
        assert np.array_equal(matrices[key], whole[key]) == (key != kernel), key
    flat = {task: {**vector, WIDE: vector[kernel].reshape(4, 12)} for task, vector in given.items()}
    merge = adam if solver == "adam" else partial(exact, ridge=1e-8)
    wanted = merge([vector[WIDE] for vector in flat.values()])
    np.testing.assert_allclose(whole[kernel].reshape(4, 12), wanted, rtol=0, atol=1e-6)


def exact(matrices: list[Array], ridge: float) -> Array:
    reads = [matrix.T @ matrix / np.sum(matrix**2) for matrix in matrices]
    pulls = sum(matrix @ own for matrix, own in zip(matrices, reads, strict=True))
    return np.asarray(np.linalg.solve(sum(reads) + ridge * np.eye(len(reads[0])), pulls.T).T)


@pytest.mark.parametrize("solver", ["adam", "closed_form"])
def test_a_task_alone_gets_its_matrices_back(solver: str) -> None:
    given = vectors("a")
    found = added("wudi", given, solver=solver)
    for key in LINEAR:
        np.testing.assert_allclose(found[key], given["a"][key], rtol=0, atol=1e-5)


def test_copies_have_their_own_matrix_as_optimum() -> None:
    one = vectors("a")["a"]
    found = added("wudi", {"a": one, "b": one, "c": one}, solver="closed_form")
    for key in LINEAR:
        np.testing.assert_allclose(found[key], one[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", ["adam", "closed_form"])
def test_coefficients_multiply_the_vectors(solver: str) -> None:
    given, point = vectors(), {"a": 0.3, "b": -1.7, "c": 0.0}
    scaled = {
        task: {key: value * point[task] for key, value in vector.items()}
        for task, vector in given.items()
    }
    options = {"solver": solver, "ridge": 0.01}
    found = added("wudi", given, point=point, **options)
    for key in LINEAR:
        matrices = [vector[key] for vector in scaled.values()]
        wanted = adam(matrices) if solver == "adam" else exact(matrices[:2], ridge=0.01)
        np.testing.assert_allclose(found[key], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", ["adam", "closed_form"])
def test_kept_factors_give_the_same_bits(solver: str) -> None:
    given = vectors()
    recipe = MergeRecipe.of("wudi", {"solver": solver, "tensors": "all", "qkv": "split"})
    states = {
        task: {key: torch.from_numpy(value).float() for key, value in vector.items()}
        for task, vector in given.items()
    }
    sources = Sources(states.__getitem__)
    take = walk(recipe, states["a"], sources, 10**8)
    for subset in ("ab", "abc", "b", "bc"):
        kept, anew = take(list(subset)), recipe.prepare(states["a"], sources, list(subset))
        assert kept.keys() == anew.keys() == SHAPES.keys()
        assert all(torch.equal(kept[key], anew[key]) for key in SHAPES)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "sgd"},
        {"tensors": "kernels"},
        {"qkv": "both"},
        {"steps": -1},
        {"steps": 1.5},
        {"lr": 0},
        {"ridge": -1e-9},
    ],
)
def test_other_values_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"option '{next(iter(options))}' of merge method 'wudi'"):
        MergeRecipe.of("wudi", options)
