"""Iso-C against NumPy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.merging.methods.towers import (
    MATRICES,
    SHAPES,
    Array,
    added,
    assert_close,
    expected,
    vectors,
)


def iso_c(matrices: list[Array]) -> Array:
    u, s, v = np.linalg.svd(sum(matrices), full_matrices=False)
    return u @ np.diag(np.ones_like(s) * s.mean()) @ v


@pytest.mark.parametrize("tasks", ["a", "ab", "abc"])
@pytest.mark.parametrize("qkv", ["fused", "split"])
def test_the_papers_algorithm(tasks: str, qkv: str) -> None:
    given = vectors(tasks)
    wanted = expected(given, iso_c, split=qkv == "split")
    assert_close(added("iso_c", given, 1.5, qkv=qkv), wanted, 1.5)


def test_directions_without_size_stay_without() -> None:
    given = vectors("ab")
    key = "transformer.resblocks.0.attn.out_proj.weight"
    for vector in given.values():
        vector[key][2] = 0
    total = sum(vector[key] for vector in given.values())
    u, s, v = np.linalg.svd(total, full_matrices=False)
    found = added("iso_c", given)[key]
    np.testing.assert_allclose(found, s.mean() * u[:, :7] @ v[:7], rtol=0, atol=1e-9)


def test_others_may_stay_at_the_base() -> None:
    given = vectors()
    mean, zero = added("iso_c", given), added("iso_c", given, others="zero")
    for key in SHAPES:
        assert np.array_equal(zero[key], mean[key]) == (key in MATRICES), key


def test_coefficients_multiply_the_vectors() -> None:
    given, point = vectors(), {"a": 0.3, "b": -1.7, "c": 2.0}
    scaled = {
        task: {key: value * point[task] for key, value in vector.items()}
        for task, vector in given.items()
    }
    assert_close(added("iso_c", given, point=point), expected(scaled, iso_c))
