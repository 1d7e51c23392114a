"""SVC against the paper's algorithm in NumPy, direction by direction."""

from __future__ import annotations

import numpy as np
import pytest

from taskgrid.errors import ConfigError
from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.towers import MATRICES, SHAPES, Array, added, expected, vectors


def svc(matrices: list[Array], scale: float, alpha: float) -> Array:
    merged = scale * sum(matrices)
    u, s, v = np.linalg.svd(merged, full_matrices=False)
    sizes = []
    for r in range(len(s)):
        together, counted = u[:, r] @ merged, 0.0
        for matrix in matrices:
            own = u[:, r] @ matrix
            counted += max(alpha, together @ own / (own @ own) if own.any() else 0.0)
        sizes.append(len(matrices) / counted * s[r])
    return u @ np.diag(sizes) @ v


@pytest.mark.parametrize("tasks", ["a", "ab", "abc"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, -0.5])
@pytest.mark.parametrize("alpha", [1.0, 0.1])
def test_the_papers_algorithm(tasks: str, scale: float, alpha: float) -> None:
    given = vectors(tasks)
    for qkv in ("fused", "split"):
        wanted = expected(given, lambda m: svc(m, scale, alpha), split=qkv == "split")
        found = added("svc", given, scale, qkv=qkv, alpha=alpha)
        for key in MATRICES:
            np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-9, err_msg=key)


@pytest.mark.parametrize(("others", "share"), [("sum", 1.0), ("mean", 1 / 3), ("zero", 0.0)])
def test_other_tensors(others: str, share: float) -> None:
    given = vectors()
    found, usual = added("svc", given, 0.3, others=others), added("svc", given, 0.3)
    for key in SHAPES:
        if key in MATRICES:
            assert np.array_equal(found[key], usual[key])
        else:
            total = sum(vector[key] for vector in given.values())
            np.testing.assert_allclose(found[key], 0.3 * share * total, rtol=0, atol=1e-12)


def test_a_task_alone_is_scaled_up_to_its_expert() -> None:
    given = vectors("a")
    for scale, factor in ((0.4, 0.4), (1.0, 1.0), (2.0, 1.0)):
        found = added("svc", given, scale)
        for key in MATRICES:
            np.testing.assert_allclose(found[key], factor * given["a"][key], rtol=0, atol=1e-9)


def test_copies_count_once() -> None:
    one = vectors("a")["a"]
    found = added("svc", dict.fromkeys("abcd", one))
    for key in MATRICES:
        np.testing.assert_allclose(found[key], one[key], rtol=0, atol=1e-9)


def test_alpha_is_more_than_nothing() -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        MergeRecipe.of("svc", {"alpha": 0.0})
