"""Thresholds that are learned for each task, against the paper's choice written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError, LineageError
from taskgrid.machine.meter import Silent
from taskgrid.merging import merge, merge_per_task
from taskgrid.merging.bases.passes import accuracy_of
from taskgrid.merging.bases.thresholds import LearnedThresholds
from taskgrid.merging.learning import LearningProblem
from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.labelled import (
    COUNTS,
    TASKS,
    Counting,
    errors_of,
    experts_of,
    planted,
)

METHODS = pytest.mark.parametrize("method", ["tall_mask", "consensus"])
NAMES = ("first", "second")


def masks(problem: LearningProblem, task: str, threshold: float) -> dict[str, NDArray[np.bool_]]:
    found = {}
    for name in NAMES:
        own = problem.tasks[task].vector[name].numpy()
        whole = sum(problem.tasks[one].vector[name].numpy() for one in TASKS)
        found[name] = np.abs(own) > threshold * np.abs(whole - own)
    return found


def masked(problem: LearningProblem, kept: dict[str, NDArray[np.bool_]]) -> dict[str, np.ndarray]:
    return {
        name: problem.base[name].numpy()
        + kept[name] * sum(problem.tasks[one].vector[name].numpy() for one in TASKS)
        for name in NAMES
    }


def by_hand(problem: LearningProblem) -> tuple[dict[str, float], list[float]]:
    chosen, errors = {}, []
    for task in TASKS:
        wrong = {
            one: errors_of(problem, masked(problem, masks(problem, task, one)), task)
            for one in (0.2, 0.3, 0.4, 0.5, 0.6)
        }
        # Of equals the smallest, which comes first.
        chosen[task] = min(wrong, key=lambda one: (wrong[one], one))
        errors += [one / COUNTS[task] for one in wrong.values()]
    return chosen, errors


@METHODS
def test_each_task_takes_what_its_masked_model_does_best_with(method: str) -> None:
    recipe, seen = MergeRecipe.of(method, {"mask_lambda": "auto"}), set()
    assert isinstance(recipe.merger, LearnedThresholds) and recipe.learns
    for seed in range(4):
        problem, told = planted(seed), Counting()
        found = recipe.merger.learn(problem, recipe.options, 0, told)
        chosen, errors = by_hand(problem)
        assert {task: float(one) for task, one in found.coefficients.items()} == chosen
        np.testing.assert_allclose([loss for _, loss in found.history], errors, atol=1e-15)
        assert sum(told.counts) == recipe.merger.images_to_pass(problem, recipe.options) == 5 * 78
        seen |= set(chosen.values())
    assert len(seen) >= 3


def test_masks_are_made_with_what_was_learned() -> None:
    problem = planted(0)
    learned = {task: torch.tensor(0.2 + 0.1 * i) for i, task in enumerate(TASKS)}
    given = {"learned": learned, "mask_lambda": "auto"}
    base, experts = problem.base, experts_of(problem)
    each = {task: masks(problem, task, float(learned[task])) for task in TASKS}
    for task, model in merge_per_task("tall_mask", base, experts, **given).items():
        for name, expected in masked(problem, each[task]).items():
            np.testing.assert_allclose(model[name].numpy(), expected, atol=1e-6)
    agreed = {name: sum(one[name].astype(int) for one in each.values()) >= 2 for name in NAMES}
    merged = merge("consensus", base, experts, 1.0, **given)
    for name, expected in masked(problem, agreed).items():
        np.testing.assert_allclose(merged[name].numpy(), expected, atol=1e-6)


@METHODS
def test_nothing_is_learned_where_a_threshold_is_given(method: str) -> None:
    assert not MergeRecipe.of(method, {"mask_lambda": 0.3}).learns
    assert not MergeRecipe.of(method, {}).learns
    with pytest.raises(ConfigError, match=r"'mask_lambda'.*it must be a number or auto"):
        MergeRecipe.of(method, {"mask_lambda": "automatic"})
    state = {"w": torch.ones(3)}
    with pytest.raises(LineageError, match=f"{method!r} learns"):
        merge_per_task(method, state, {"x": state}, mask_lambda="auto")


def test_accuracy_does_not_depend_on_how_many_images_pass_at_once() -> None:
    problem = planted(0)
    for task, count in COUNTS.items():
        theta = {name: problem.base[name].numpy() for name in NAMES}
        right = count - errors_of(problem, theta, task)
        for size in (1, 7, 128):
            told = Counting()
            found = accuracy_of(problem, problem.base, task, told, batch_size=size)
            assert found.numerator * count == right * found.denominator
            assert sum(told.counts) == count and max(told.counts) == min(size, count)
    assert accuracy_of(problem, problem.base, "a", Silent()) == accuracy_of(
        problem, problem.base, "a", Silent(), batch_size=9
    )
