"""The recipe: learning rates, numbers of steps, what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from taskgrid.errors import ConfigError
from taskgrid.finetuning.recipe import Recipe


def test_learning_rate_warms_up_linearly_then_decays_as_a_cosine() -> None:
    recipe = Recipe(steps=2000)
    rates = [recipe.learning_rate(step, 2000) for step in range(2000)]
    assert rates[0] == pytest.approx(1e-5 / 500)
    assert rates[249] == pytest.approx(0.5e-5)
    assert rates[499] == rates[500] == 1e-5
    assert rates[1250] == pytest.approx(0.5e-5)
    assert rates[1999] == pytest.approx(1e-5 * 0.5 * (1 + math.cos(math.pi * 1499 / 1500)))
    assert all(a >= b for a, b in itertools.pairwise(rates[500:]))


def test_recipe_counts_steps_as_the_papers_do() -> None:
    # protocol.md 2.1: 55,000 MNIST images, 5 epochs of 128: 2,150 steps; DTD: 3,384, 76 epochs.
    assert Recipe(epochs=5).total_steps(55_000) == 2150
    assert Recipe(epochs=76).total_steps(3_384) == 2052
    assert Recipe(steps=77, warmup_steps=0).total_steps(10) == 77


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "steps. or .epochs"),
        ({"steps": 5, "epochs": 5}, "not both"),
        ({"steps": 0}, r"recipe\.steps is 0"),
        ({"steps": 5, "batch_size": 10, "accumulate": 3}, "accumulate 3 does not divide"),
        ({"steps": 5, "lr": -1.0}, r"recipe\.lr is -1\.0"),
        ({"steps": 5, "crop_scale": 1.5}, r"crop_scale is 1\.5"),
        ({"steps": 5, "momentum": 0.9}, "unknown key 'recipe.momentum'"),
    ],
)
def test_impossible_recipes_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Recipe.from_mapping(values)


def test_a_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_steps 500 leaves nothing of 80 steps"):
        Recipe(steps=80).total_steps(100)
    with pytest.raises(ConfigError, match="no training images"):
        Recipe(steps=80).total_steps(0)
