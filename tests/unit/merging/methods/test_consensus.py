"""Consensus merging against the paper's equation, one weight after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.errors import ConfigError
from taskgrid.merging import merge
from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors
from tests.unit.merging.methods.test_ties import by_hand


@settings(max_examples=40)
@given(
    arrays=task_vectors(),
    agree=st.sampled_from([0, 1, 2, 3]),
    mask_lambda=st.sampled_from([0.0, 0.25, 0.4, 1.0]),
    inner=st.sampled_from([None, ("sum", 0.2), ("mean", 0.5), ("max", 1.0)]),
    scale=st.sampled_from([1.0, 0.3, -2.0]),
)
def test_entries_that_matter_to_enough_tasks_are_kept(
    arrays: Arrays, agree: int, mask_lambda: float, inner: tuple[str, float] | None, scale: float
) -> None:
    said: dict[str, Any] = {"agree": agree, "mask_lambda": mask_lambda}
    merged: dict[str, Any]
    if inner is None:
        merged = {name: sum(vector[name] for vector in arrays.values()) for name in SHAPES}
    else:
        merged = by_hand(arrays, combine=inner[0], density=inner[1])
        said |= {"of": "ties", "combine": inner[0], "density": inner[1]}
    (found,) = models("consensus", arrays, scale, **said).values()
    for name, shape in SHAPES.items():
        for at in np.ndindex(shape):
            whole = merged[name][at]
            own = [vector[name][at] for vector in arrays.values()]
            votes = sum(abs(one) > mask_lambda * abs(whole - one) for one in own)
            expected = scale * whole if votes >= agree else 0
            assert found[name][at] == pytest.approx(expected, rel=1e-15)


def test_a_subset_smaller_than_the_quorum_stays_at_the_base() -> None:
    arrays = {"x": {name: np.full(shape, 0.5) for name, shape in SHAPES.items()}}
    (found,) = models("consensus", arrays).values()
    assert not any(array.any() for array in found.values())
    (found,) = models("consensus", arrays, agree=1).values()
    assert all((array == 0.5).all() for array in found.values())


def test_what_must_be_seen_at_once_follows_from_what_is_masked() -> None:
    assert MergeRecipe.of("consensus", {}).scope == "element"
    assert MergeRecipe.of("consensus", {"of": "ties"}).scope == "model"


@pytest.mark.parametrize(
    "options", [{"agree": -1}, {"agree": 1.5}, {"mask_lambda": -0.1}, {"of": "dare"}]
)
def test_wrong_options(options: dict[str, Any]) -> None:
    (name,) = options
    state = {"w": torch.ones(3)}
    with pytest.raises(ConfigError, match=f"option '{name}' of merge method 'consensus'"):
        merge("consensus", state, {"x": {"w": torch.zeros(3)}}, **options)
