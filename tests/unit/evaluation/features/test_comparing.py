"""CKA, cosines and distances against what their definitions say, summed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.evaluation.features.comparing import distances, linear_cka, mean_cosine


def drawn(n: int, channels: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, channels)) + 0.7)


def hsic(one: np.ndarray, two: np.ndarray) -> float:
    """tr(K H L H) with linear kernels and the centring matrix, entry by entry."""
    n = len(one)
    kernels = []
    for x in (one, two):
        kernels.append(
            np.array([[sum(a * b for a, b in zip(p, q, strict=True)) for q in x] for p in x])
        )
    centring = np.eye(n) - np.full((n, n), 1 / n)
    return float(np.trace(kernels[0] @ centring @ kernels[1] @ centring))


# Fewer images than channels, more, and as many as one has.
@pytest.mark.parametrize("n", [4, 6, 9])
def test_cka_is_hsic_with_linear_kernels(n: int) -> None:
    networks = [drawn(n, 6, 1), drawn(n, 6, 2), drawn(n, 7, 3)]
    found = linear_cka(networks)
    for i, one in enumerate(networks):
        for j, other in enumerate(networks):
            a, b = one.numpy(), other.numpy()
            wanted = hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b))
            assert found[i][j] == pytest.approx(wanted, rel=1e-12)
            assert found[i][j] == pytest.approx(found[j][i], rel=1e-14)


@pytest.mark.parametrize("n", [5, 40])
def test_cka_sees_no_rotation_no_size_and_no_shift(n: int) -> None:
    x = drawn(n, 8, 4)
    q, _ = torch.linalg.qr(drawn(8, 8, 5))
    stretched = x @ torch.diag(torch.linspace(0.1, 5, 8, dtype=torch.float64))
    same, other = linear_cka([x, -3 * x @ q + 11, stretched])[0][1:]
    assert same == pytest.approx(1.0, abs=1e-12)
    assert other is not None and other < 0.99


@pytest.mark.parametrize("n", [3, 30])
def test_cka_of_what_no_image_changes_is_not_known(n: int) -> None:
    still = torch.full((n, 8), 0.3, dtype=torch.float32)
    found = linear_cka([drawn(n, 8, 6), still])
    assert found[0][1] is found[1][0] is found[1][1] is None
    assert found[0][0] == pytest.approx(1.0)


def test_cosine_is_the_mean_over_images() -> None:
    one, two = drawn(7, 5, 7), drawn(7, 5, 8)
    wanted = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(one.numpy(), two.numpy(), strict=True)
    ]
    assert mean_cosine(one, two) == pytest.approx(np.mean(wanted), rel=1e-12)
    assert mean_cosine(one, 4 * one) == pytest.approx(1.0)
    # No image sees what the others are.
    assert mean_cosine(one, torch.zeros_like(one)) is None


def test_distances_are_means_over_images() -> None:
    one, two = drawn(7, 5, 9), drawn(7, 5, 10)
    apart = (one - two).numpy()
    l1, l2 = distances(one, two)
    assert l1 == pytest.approx(np.abs(apart).sum() / 35, rel=1e-12)
    assert l2 == pytest.approx(sum(np.sqrt((row**2).sum()) for row in apart) / 7, rel=1e-12)
    assert distances(one, one) == (0.0, 0.0)
