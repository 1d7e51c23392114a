"""TSV-M against NumPy's singular value decompositions, step by step as in the paper's algorithm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


def tsv_m(matrices: list[Array], weights: list[float] | None = None) -> Array:
    rank = min(matrices[0].shape)
    share = int(rank * (1 / len(matrices)))
    left = np.zeros((matrices[0].shape[0], rank))
    sizes = np.zeros(rank)
    right = np.zeros((rank, matrices[0].shape[1]))
    for place, matrix in enumerate(matrices):
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        rows = slice(place * share, (place + 1) * share)
        left[:, rows], right[rows] = u[:, :share], v[:share]
        sizes[rows] = s[:share] * (weights[place] if weights else 1)
    u_left, _, v_left = np.linalg.svd(left, full_matrices=False)
    u_right, _, v_right = np.linalg.svd(right, full_matrices=False)
    return u_left @ v_left @ np.diag(sizes) @ u_right @ v_right


@pytest.mark.parametrize("tasks", ["ab", "abc", "abcd"])
@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_the_papers_algorithm(tasks: str, qkv: str) -> None:
    given = vectors(tasks)
    wanted = expected(given, tsv_m, split=qkv == "split")
    assert_close(added("tsv_m", given, 0.7, qkv=qkv), wanted, 0.7)


def test_a_task_alone_gets_its_expert_back() -> None:
    given = vectors("a")
    found = added("tsv_m", given)
    assert all(np.array_equal(found[key], given["a"][key]) for key in SHAPES)


def test_more_tasks_than_directions_leave_a_matrix_alone() -> None:
    given = vectors("abcdefg")
    found = added("tsv_m", given)
    assert not found["proj"].any()
    assert found["positional_embedding"].any()


def test_others_may_stay_at_the_base() -> None:
    given = vectors()
    mean, zero = added("tsv_m", given), added("tsv_m", given, others="zero")
    for key in SHAPES:
        assert np.array_equal(zero[key], mean[key]) == (key in MATRICES), key
        assert key in MATRICES or not zero[key].any()


def test_coefficients_multiply_singular_values() -> None:
    given, point = vectors(), {"a": 0.3, "b": -1.7, "c": 2.0}
    found = added("tsv_m", given, point=point)
    for key in MATRICES:
        wanted = tsv_m([vector[key] for vector in given.values()], list(point.values()))
        np.testing.assert_allclose(found[key], wanted, rtol=0, atol=1e-9)
    bias = sum(weight * given[task]["ln_pre.bias"] for task, weight in point.items()) / 3
    np.testing.assert_allclose(found["ln_pre.bias"], bias, rtol=0, atol=1e-12)


def test_kept_triplets_give_the_same_bits() -> None:
    given = vectors()
    recipe = MergeRecipe.of("tsv_m", {"qkv": "split"})
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


def test_copies_give_one_of_them_of_lower_rank() -> None:
    one = vectors("a")["a"]
    found = added("tsv_m", {"a": one, "b": one})
    u, s, v = np.linalg.svd(one[QKV], full_matrices=False)
    np.testing.assert_allclose(found[QKV], (u[:, :4] * s[:4]) @ v[:4], rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "iso_cts", "svc"])
def test_other_words_are_refused(method: str) -> None:
    for options in ({"qkv": "both"}, {"others": "median"}):
        with pytest.raises(ConfigError, match="allowed"):
            MergeRecipe.of(method, options)
