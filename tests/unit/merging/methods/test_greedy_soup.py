"""Greedy soup against recipe 1, written out in NumPy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from taskgrid.machine.meter import Silent
from taskgrid.merging import merge
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.methods import greedy_soup
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.store.weights import digest_state
from tests.unit.merging.methods.labelled import (
    COUNTS,
    TASKS,
    Counting,
    errors_of,
    experts_of,
    planted,
)


def by_hand(problem: LearningProblem) -> tuple[list[str], list[float]]:
    """Recipe 1 in NumPy: who is kept, and the error of everything that was tried."""
    errors: list[float] = []

    def accuracy(members: list[str]) -> float:
        theta = {
            name: problem.base[name].numpy()
            + np.mean([problem.tasks[t].vector[name].numpy() for t in members], axis=0)
            for name in ("first", "second")
        }
        each = [1 - errors_of(problem, theta, task) / COUNTS[task] for task in TASKS]
        errors.append(1 - float(np.mean(each)))
        return 1 - errors[-1]

    alone = {task: accuracy([task]) for task in TASKS}
    ingredients: list[str] = []
    before = -1.0
    for task in sorted(TASKS, key=lambda task: (-alone[task], task)):
        found = accuracy([*ingredients, task]) if ingredients else alone[task]
        # Equal means of other counts differ by rounding here.
        if found >= before - 1e-12:
            ingredients, before = [*ingredients, task], found
    return sorted(ingredients), errors


def learned(problem: LearningProblem) -> Learning:
    options = MergeRecipe.of("greedy_soup", {}).options
    return greedy_soup.MERGER.learn(problem, options, 0, Silent())


def test_it_is_recipe_1_written_out() -> None:
    sizes = set()
    for seed in range(12):
        problem = planted(seed)
        kept, errors = by_hand(problem)
        found = learned(problem)
        expected = {task: 1 / len(kept) if task in kept else 0.0 for task in TASKS}
        assert {task: float(one) for task, one in found.coefficients.items()} == expected
        assert [step for step, _ in found.history] == list(range(2 * len(TASKS) - 1))
        np.testing.assert_allclose([loss for _, loss in found.history], errors, atol=1e-12)
        # What is kept gets no less right than the best expert.
        assert min(errors) <= min(errors[: len(TASKS)])
        sizes.add(len(kept))
    assert len(sizes) >= 3


def test_an_expert_that_changes_nothing_is_kept_and_one_that_harms_is_not() -> None:
    right = {"a": Fraction(1, 2), "b": Fraction(3, 4), "c": Fraction(3, 4)}
    told: list[tuple[str, ...]] = []

    def accuracy(members: object) -> Fraction:
        told.append(tuple(members))  # type: ignore[arg-type]
        if len(told[-1]) == 1:
            return right[told[-1][0]]
        return Fraction(3, 4) if told[-1] == ("b", "c") else Fraction(2, 3)

    # Of b and c, equally accurate, the first is the first; c does not lower it, a does.
    assert greedy_soup.greedy(["a", "b", "c"], accuracy) == ["b", "c"]
    assert told == [("a",), ("b",), ("c",), ("b", "c"), ("b", "c", "a")]


def test_the_merge_is_the_mean_of_the_experts_that_were_kept() -> None:
    problem = planted(0)
    kept, _ = by_hand(problem)
    assert 1 < len(kept) < len(TASKS)
    experts = experts_of(problem)
    merged = merge("greedy_soup", problem.base, experts, learned=learned(problem).coefficients)
    average = merge("average", problem.base, {task: experts[task] for task in kept}, 1.0)
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-12, atol=1e-12)


def test_the_best_expert_alone_comes_out_unchanged() -> None:
    base, expert = {"w": torch.tensor([0.1, 0.7])}, {"w": torch.tensor([0.11, 0.68])}
    alone = {"a": torch.tensor(1.0), "b": torch.tensor(0.0)}
    other = {"w": torch.tensor([9.0, 9.0])}
    merged = merge("greedy_soup", base, {"a": expert, "b": other}, learned=alone)
    assert digest_state(merged) == digest_state(expert)


def test_every_image_passes_once_for_all_that_is_tried() -> None:
    problem, options, told = planted(1), MergeRecipe.of("greedy_soup", {}).options, Counting()
    greedy_soup.MERGER.learn(problem, options, 0, told)
    assert sum(told.counts) == greedy_soup.MERGER.images_to_pass(problem, options) == 7 * 78
