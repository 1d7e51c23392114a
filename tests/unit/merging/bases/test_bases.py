"""What methods share: sums, refused subclasses, masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taskgrid.merging.bases.additive import Additive, weighted_sum
from taskgrid.merging.bases.masks import pack, unpack


def test_weights_act_in_float64() -> None:
    vectors = [{"w": torch.tensor([x])} for x in (1.0, 3.0, 7.0)]
    total = weighted_sum(list(zip((0.1, 1 / 3, 2.5), vectors, strict=True)))
    assert total["w"].item() == (0.1 * 1.0 + (1 / 3) * 3.0) + 2.5 * 7.0


@pytest.mark.parametrize("name", ["prepare", "apply", "step"])
def test_an_additive_method_that_would_compute_on_its_own_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine.{name} would be ignored.*subclass Line, Fold"):
        type("Mine", (Additive,), {name: lambda self: None})
    assert issubclass(
        type("Fine", (Additive,), {"weight": lambda self, task, options: 2.0}), Additive
    )


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)))
def test_a_mask_is_packed_to_a_bit_per_entry(
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> None:
    found = pack(torch.from_numpy(mask))
    assert found.numpy().tobytes() == np.packbits(mask, bitorder="little").tobytes()
    back = unpack(found, torch.Size(mask.shape))
    assert back.dtype == torch.bool and np.array_equal(back.numpy(), mask)


@given(st.integers(0, 40))
def test_masks_of_views_are_those_of_their_entries(length: int) -> None:
    mask = torch.arange(2 * length).view(length, 2).T % 3 == 0
    assert torch.equal(unpack(pack(mask), mask.shape), mask)
