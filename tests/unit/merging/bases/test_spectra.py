"""Singular vectors and polar factors against NumPy, well and badly conditioned, wide and tall."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.merging.bases.spectra import largest_triplets, polar_factor

SHAPES = [(9, 9), (14, 6), (6, 14), (1, 5), (5, 1)]


def planted(shape: tuple[int, int], weakest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular vectors, and sizes that fall from 1 to ``weakest``."""
    random, rank = np.random.default_rng(0), min(shape)
    left = np.linalg.qr(random.normal(size=(shape[0], rank)))[0]
    right = np.linalg.qr(random.normal(size=(shape[1], rank)))[0].T
    return left, np.geomspace(1, weakest, rank), right


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weakest", [0.5, 2e-3, 1e-4, 1e-7])
def test_planted_factors(shape: tuple[int, int], weakest: float) -> None:
    left, sizes, right = planted(shape, weakest)
    matrix = torch.from_numpy(left * sizes @ right)
    np.testing.assert_allclose(polar_factor(matrix).numpy(), left @ right, rtol=0, atol=1e-8)
    for count in range(min(shape) + 1):
        found = largest_triplets(matrix, count)
        np.testing.assert_allclose(found.sizes.numpy(), sizes[:count], rtol=1e-8)
        product = (found.left * found.sizes) @ found.right
        wanted = left[:, :count] * sizes[:count] @ right[:count]
        np.testing.assert_allclose(product.numpy(), wanted, rtol=0, atol=1e-9)
        for gram in (found.left.T @ found.left, found.right @ found.right.T):
            np.testing.assert_allclose(gram.numpy(), np.eye(count), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_has_unit_vectors_and_no_polar_factor(shape: tuple[int, int]) -> None:
    nothing, rank = torch.zeros(shape, dtype=torch.float64), min(shape)
    found = largest_triplets(nothing, rank)
    assert torch.equal(found.left, torch.eye(shape[0], rank, dtype=torch.float64))
    assert torch.equal(found.right, torch.eye(rank, shape[1], dtype=torch.float64))
    assert not found.sizes.any()
    assert torch.equal(polar_factor(nothing), nothing)


def test_directions_without_size_have_no_part_in_the_polar_factor() -> None:
    left, sizes, right = planted((8, 12), 0.1)
    sizes[5:] = 0
    found = polar_factor(torch.from_numpy(left * sizes @ right))
    np.testing.assert_allclose(found.numpy(), left[:, :5] @ right[:5], rtol=0, atol=1e-9)
