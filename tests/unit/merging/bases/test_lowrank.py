"""Changes of low rank: factors are found again, rounding is no rank, and what is none is told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.merging.bases.lowrank import low_rank


def change(rows: int, columns: int, rank: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return b @ torch.randn(rank, columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("rows", "columns", "rank"),
    [(6, 9, 3), (9, 6, 1), (200, 150, 70), (150, 200, 75), (384, 128, 48), (300, 300, 0)],
)
def test_factors_are_those_of_numpy(rows: int, columns: int, rank: int) -> None:
    delta = change(rows, columns, rank).float()
    found = low_rank(delta, torch.zeros(rows, columns))
    assert found is not None and found.left.shape == (rows, rank)
    sizes = np.linalg.svd(delta.double().numpy(), compute_uv=False)[:rank]
    np.testing.assert_allclose(found.sizes.numpy(), sizes, rtol=1e-9)
    product = (found.left * found.sizes) @ found.right
    assert float((product - delta.double()).norm()) <= 1e-7 * float(delta.norm())
    for columns_of in (found.left, found.right.T):
        gram = (columns_of.T @ columns_of).numpy()
        np.testing.assert_allclose(gram, np.eye(rank), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 0.02, 1.0])
def test_the_rounding_of_weights_is_no_rank(dtype: torch.dtype, size: float) -> None:
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(90, 80, generator=generator).to(dtype)
    # Rows as unequal as those of embeddings.
    base *= torch.logspace(-2, 1, 90)[:, None].to(dtype)
    expert = (base.double() + size * change(90, 80, 4)).to(dtype)
    found = low_rank((expert.double() - base.double()).float(), base)
    assert found is not None and len(found.sizes) <= 4
    # Of what is well above the rounding, all is found.
    if size >= 1000 * torch.finfo(dtype).eps:
        assert len(found.sizes) == 4


@pytest.mark.parametrize(("rows", "columns", "rank"), [(6, 9, 4), (150, 200, 76), (300, 260, 260)])
def test_more_than_half_of_the_directions_are_no_low_rank(
    rows: int, columns: int, rank: int
) -> None:
    assert low_rank(change(rows, columns, rank).float(), torch.ones(rows, columns)) is None


def test_a_change_of_opposite_sign_has_the_same_left_factor() -> None:
    delta, base = change(30, 20, 3).float(), torch.zeros(30, 20)
    one, other = low_rank(delta, base), low_rank(-delta, base)
    assert one is not None and other is not None
    assert torch.equal(one.left, other.left) and torch.equal(one.right, -other.right)
