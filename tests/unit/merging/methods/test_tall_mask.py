"""TALL masks against equation 4, one weight after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.merging import merge_per_task
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors
from tests.unit.merging.methods.test_ties import by_hand


@settings(max_examples=60)
@given(
    arrays=task_vectors(),
    mask_lambda=st.sampled_from([0.0, 0.25, 0.4, 1.0, 2.0]),
    inner=st.sampled_from([None, ("sum", 0.2), ("mean", 0.5), ("max", 1.0)]),
)
def test_each_task_gets_what_matters_to_it(
    arrays: Arrays, mask_lambda: float, inner: tuple[str, float] | None
) -> None:
    if inner is None:
        merged = {name: sum(vector[name] for vector in arrays.values()) for name in SHAPES}
        found = models("tall_mask", arrays, mask_lambda=mask_lambda)
    else:
        merged = by_hand(arrays, combine=inner[0], density=inner[1])
        options = {"of": "ties", "combine": inner[0], "density": inner[1]}
        found = models("tall_mask", arrays, mask_lambda=mask_lambda, **options)
    for task, vector in arrays.items():
        for name, shape in SHAPES.items():
            for at in np.ndindex(shape):
                own, all_of_them = vector[name][at], merged[name][at]
                keeps = abs(own) > mask_lambda * abs(all_of_them - own)
                assert found[task][name][at] == pytest.approx(
                    all_of_them if keeps else 0, rel=1e-15
                )


def test_a_task_alone_gets_its_expert_back() -> None:
    random = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(40, generator=random)}
    expert = {"w": base["w"] + 2.0**-6 * torch.randint(-9, 9, (40,), generator=random)}
    # Where the difference is exact, so is the model.
    exact = (expert["w"] - base["w"]).double() == expert["w"].double() - base["w"].double()
    found = merge_per_task("tall_mask", base, {"dtd": expert})["dtd"]["w"]
    assert torch.equal(found[exact], expert["w"][exact]) and exact.sum() > 20


@pytest.mark.parametrize(("method", "tensors"), [("tall_mask", 8), ("emr", 4)])
def test_what_is_kept_takes_a_bit_per_weight_and_task(method: str, tensors: int) -> None:
    count = 8000
    vectors = {task: {"w": torch.randn(count)} for task in "abcd"}
    recipe, base = MergeRecipe.of(method, {}), {"w": torch.zeros(count)}
    prepared = recipe.prepare(base, Sources(vectors.__getitem__), "abcd")
    held = sum(tensor.nbytes for tensor in prepared.values())
    assert held <= count * tensors + len(vectors) * (count // 8 + 8)


def test_what_must_be_seen_at_once_follows_from_what_is_masked() -> None:
    assert MergeRecipe.of("tall_mask", {}).scope == "element"
    assert MergeRecipe.of("tall_mask", {"of": "ties"}).scope == "model"
