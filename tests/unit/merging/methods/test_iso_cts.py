"""Iso-CTS against NumPy's singular value decompositions, step by step as in the paper's algorithm."""

from __future__ import annotations

import numpy as np
import pytest

from taskgrid.errors import ConfigError
from taskgrid.merging.methods.iso_cts import own_directions
from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.towers import (
    MATRICES,
    SHAPES,
    Array,
    added,
    assert_close,
    expected,
    vectors,
)


def iso_cts(matrices: list[Array], fraction: float = 0.8) -> Array:
    rank, tasks = min(matrices[0].shape), len(matrices)
    own_total = round((rank - int(rank * fraction)) / tasks) * tasks
    common, own = rank - own_total, own_total // tasks
    u, s, v = np.linalg.svd(sum(matrices), full_matrices=False)
    u, s, v = u[:, :common], s[:common], v[:common]
    lefts, sizes, rights = [], [], []
    for matrix in matrices:
        u_t, s_t, v_t = np.linalg.svd(matrix - u @ u.T @ matrix, full_matrices=False)
        lefts.append(u_t[:, :own])
        sizes.append(s_t[:own])
        rights.append(v_t[:own])
    u_left, _, v_left = np.linalg.svd(np.concatenate([*lefts, u], axis=1), full_matrices=False)
    u_right, _, v_right = np.linalg.svd(np.concatenate([*rights, v]), full_matrices=False)
    mean = np.concatenate([*sizes, s]).mean()
    return u_left @ v_left @ np.diag(np.full(rank, mean)) @ u_right @ v_right


@pytest.mark.parametrize("tasks", ["a", "ab", "abc"])
@pytest.mark.parametrize("qkv", ["fused", "split"])
@pytest.mark.parametrize("fraction", [0.8, 0.45])
def test_the_papers_algorithm(tasks: str, qkv: str, fraction: float) -> None:
    given = vectors(tasks)
    wanted = expected(given, lambda m: iso_cts(m, fraction), split=qkv == "split")
    assert_close(added("iso_cts", given, 1.2, qkv=qkv, fraction=fraction), wanted, 1.2)


def test_all_common_is_iso_c() -> None:
    given = vectors()
    assert_close(added("iso_cts", given, fraction=1.0), added("iso_c", given))


@pytest.mark.parametrize(
    ("rank", "tasks", "fraction", "own"),
    [(768, 8, 0.8, 19), (10, 3, 0.8, 1), (5, 4, 0.8, 0), (7, 4, 0.0, 1), (768, 1, 0.8, 154)],
)
def test_directions_of_its_own(rank: int, tasks: int, fraction: float, own: int) -> None:
    assert own_directions(rank, tasks, fraction) == own


def test_others_may_stay_at_the_base() -> None:
    given = vectors()
    mean, zero = added("iso_cts", given), added("iso_cts", given, others="zero")
    for key in SHAPES:
        assert np.array_equal(zero[key], mean[key]) == (key in MATRICES), key


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_a_share_is_between_nothing_and_all(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"at (least|most)"):
        MergeRecipe.of("iso_cts", {"fraction": fraction})
