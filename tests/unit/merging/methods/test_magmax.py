"""MagMax against its definition, one weight after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors


@settings(max_examples=60)
@given(arrays=task_vectors(), scale=st.sampled_from([1.0, 0.3, -2.0]), pointed=st.booleans())
def test_the_largest_entry_wins_and_of_equal_ones_the_last(
    arrays: Arrays, scale: float, pointed: bool
) -> None:
    factors = dict(zip(sorted(arrays), (0.5, -1.0, 2.0, 0.0), strict=False))
    point = factors if pointed else dict.fromkeys(arrays, 1.0)
    (found,) = models("magmax", arrays, scale, factors if pointed else None).values()
    for name, shape in SHAPES.items():
        for at in np.ndindex(shape):
            entries = [point[task] * arrays[task][name][at] for task in sorted(arrays)]
            largest = max(map(abs, entries))
            assert found[name][at] == scale * [e for e in entries if abs(e) == largest][-1]


def test_copies_of_an_expert_are_the_expert_and_elements_can_pass_by() -> None:
    vector = {name: np.full(shape, -0.75) for name, shape in SHAPES.items()}
    (found,) = models("magmax", dict.fromkeys("xyz", vector)).values()
    assert all((found[name] == -0.75).all() for name in SHAPES)
    assert MergeRecipe.of("magmax", {}).scope == "element"
