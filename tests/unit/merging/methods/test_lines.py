"""LiNeS against the paper's equation, tensor by tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.errors import ConfigError
from taskgrid.merging import merge
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors
from tests.unit.merging.methods.test_ties import by_hand

WEIGHTS = {"w": 0.5, "x": 1.0, "y": -2.0, "z": 0.25}
BLOCKS = {
    "conv1.weight": 0.0,
    "ln_pre.bias": 0.0,
    "transformer.resblocks.0.mlp.c_fc.weight": 0.0,
    "transformer.resblocks.1.attn.in_proj_weight": 0.5,
    "transformer.resblocks.2.ln_1.weight": 1.0,
    "ln_post.weight": 0.0,
    "proj": 0.0,
}
"""Depths in a tower of three blocks."""


@settings(max_examples=40)
@given(
    arrays=task_vectors(),
    alpha=st.sampled_from([None, 0.0, 0.3]),
    inner=st.sampled_from(
        [None, ("mean", 0.2, "global", "majority"), ("sum", 0.5, "tensor", "positive")]
    ),
    weighted=st.booleans(),
    beta=st.sampled_from([0.0, 1.0]),
)
def test_without_blocks_all_gets_alpha(
    arrays: Arrays, alpha: float | None, inner: tuple[Any, ...] | None, weighted: bool, beta: float
) -> None:
    said: dict[str, Any] = {"alpha": alpha} | ({"weights": WEIGHTS} if weighted else {})
    by = {task: WEIGHTS[task] if weighted else 1.0 for task in arrays}
    merged: dict[str, Any]
    summed = {name: sum(by[task] * arrays[task][name] for task in arrays) for name in SHAPES}
    if inner is None:
        merged = summed
    else:
        ties = dict(zip(("combine", "density", "trim", "zero_sign"), inner, strict=True))
        merged = by_hand(arrays, **ties, weights=WEIGHTS if weighted else None)
        said |= {"of": "ties", **ties}
    if alpha is None:
        own = sum(np.abs(array).sum() for array in summed.values())
        left = sum(np.abs(array).sum() for array in merged.values())
        alpha = (own / left if left else 1.0) / len(arrays)
    (found,) = models("lines", arrays, beta, **said).values()
    for name in SHAPES:
        np.testing.assert_allclose(found[name], alpha * merged[name], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("beta", [0.0, 0.5, -1.0])
def test_blocks_get_more_the_deeper_they_are(beta: float) -> None:
    base = {name: torch.zeros(2, dtype=torch.float64) for name in BLOCKS}
    experts = {
        task: {name: torch.full((2,), value, dtype=torch.float64) for name in BLOCKS}
        for task, value in (("x", 1.0), ("y", 2.0), ("z", 0.5))
    }
    found = merge("lines", base, experts, beta)
    for name, depth in BLOCKS.items():
        expected = torch.full((2,), (1 / 3 + beta * depth) * 3.5, dtype=torch.float64)
        torch.testing.assert_close(found[name], expected)


def test_a_single_block_and_the_stages_of_a_residual_network() -> None:
    for names, expected in (
        (["resblocks.0.w", "proj"], [1.0, 1.0]),
        (["conv1.w", "layer1.0.w", "layer1.1.w", "layer4.0.w"], [1.0, 1.0, 1.5, 2.0]),
    ):
        base = {name: torch.zeros(1) for name in names}
        found = merge("lines", base, {"x": {name: torch.ones(1) for name in names}}, 1.0)
        assert [float(found[name]) for name in names] == expected


@pytest.mark.parametrize(
    "options",
    [{"alpha": "auto"}, {"of": "dare"}, {"density": 0}, {"trim": "row"}, {"combine": "any"}],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    (name,) = options
    state = {"w": torch.ones(3)}
    with pytest.raises(ConfigError, match=f"option '{name}' of merge method 'lines'"):
        merge("lines", state, {"x": {"w": torch.zeros(3)}}, **options)
