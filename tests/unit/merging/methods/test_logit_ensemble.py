"""The ensemble against averages in exact fractions and in NumPy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from taskgrid.merging.recipe import MergeRecipe


def logits(count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {task: 10 * torch.randn(7, 5, generator=generator) for task in "abcd"[:count]}


def test_the_mean_of_logits_is_rounded_once() -> None:
    said, recipe = logits(), MergeRecipe.of("logit_ensemble", {})
    found = recipe.logit_merger.combine(said, recipe.options)
    for at in np.ndindex(7, 5):
        exact = sum(Fraction(float(one[at])) for one in said.values()) / 3
        assert found[at].item() == np.float32(float(exact))


def test_the_mean_of_probabilities() -> None:
    said, recipe = logits(), MergeRecipe.of("logit_ensemble", {"of": "probabilities"})
    found = recipe.logit_merger.combine(said, recipe.options).double().exp().numpy()
    spoken = [np.exp(one.double().numpy()) for one in said.values()]
    mean = np.mean([one / one.sum(axis=1, keepdims=True) for one in spoken], axis=0)
    np.testing.assert_allclose(found, mean, rtol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=2e-6)


def test_both_decide_otherwise_where_one_expert_shouts() -> None:
    said = {
        "a": torch.tensor([[30.0, 0.0]]),
        "b": torch.tensor([[0.0, 2.0]]),
        "c": torch.tensor([[0.0, 2.0]]),
    }
    classes = {}
    for of in ("logits", "probabilities"):
        recipe = MergeRecipe.of("logit_ensemble", {"of": of})
        classes[of] = recipe.logit_merger.combine(said, recipe.options).argmax().item()
    assert classes == {"logits": 0, "probabilities": 1}


def test_one_expert_alone_is_that_expert() -> None:
    said, recipe = logits(1), MergeRecipe.of("logit_ensemble", {})
    assert torch.equal(recipe.logit_merger.combine(said, recipe.options), said["a"])
