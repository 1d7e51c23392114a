from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
import torch

from taskgrid.machine.meter import Silent
from taskgrid.merging import merge
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods import greedy_soup
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.heads import Head
from taskgrid.store.weights import State, digest_state

DIM, CLASSES, TASKS = 6, 4, ("a", "b", "c", "d")
COUNTS = {"a": 30, "b": 17, "c": 22, "d": 9}


def network(state: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    return torch.tanh(inputs.flatten(1) @ state["first"]) @ state["second"]


def planted(seed: int) -> LearningProblem:
    """Experts that were moved towards the network that labels all images, each by another share."""
    random = np.random.default_rng(seed)
    base = {"first": random.normal(size=(12, DIM)), "second": random.normal(size=(DIM, DIM))}
    goal = {name: random.normal(size=array.shape) for name, array in base.items()}
    tasks = {}
    for share, (task, count) in zip((0.9, 0.6, 0.7, 0.0), COUNTS.items(), strict=True):
        vector = {
            name: torch.from_numpy(share * goal[name] + random.normal(size=array.shape))
            for name, array in base.items()
        }
        inputs = torch.from_numpy(random.normal(size=(count, 3, 2, 2)))
        head = Head(torch.from_numpy(random.normal(size=(CLASSES, DIM))), tuple("wxyz"), {})
        truth = {name: torch.from_numpy(array + goal[name]) for name, array in base.items()}
        labels = head.logits(network(truth, inputs)).argmax(dim=1)

        def rows_of(rows: np.ndarray, inputs: torch.Tensor = inputs) -> torch.Tensor:
            return inputs[torch.from_numpy(rows)]

        tasks[task] = LearningTask(vector, head, count, rows_of, labels)
    states: State = {name: torch.from_numpy(array) for name, array in base.items()}
    return LearningProblem(states | {"counter": torch.tensor(3)}, tasks, network)


def by_hand(problem: LearningProblem) -> tuple[list[str], list[float]]:
    """Recipe 1 in NumPy: who is kept, and the error of everything that was tried."""
    errors: list[float] = []

    def accuracy(members: list[str]) -> float:
        theta = {
            name: problem.base[name].numpy()
            + np.mean([problem.tasks[t].vector[name].numpy() for t in members], axis=0)
            for name in ("first", "second")
        }
        each = []
        for task, found in problem.tasks.items():
            x = found.inputs(np.arange(COUNTS[task])).numpy().reshape(COUNTS[task], -1)
            features = np.tanh(x @ theta["first"]) @ theta["second"]
            guess = (features @ found.head.weight.numpy().T).argmax(axis=1)
            assert found.labels is not None
            each.append((guess == found.labels.numpy()).mean())
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


def learned(problem: LearningProblem, **options: object) -> Learning:
    checked = MergeRecipe.of("greedy_soup", options).options
    return greedy_soup.MERGER.learn(problem, checked, 0, Silent())


def test_it_is_recipe_1_written_out() -> None:
    sizes = set()
    for seed in range(12):
        problem = planted(seed)
        kept, errors = by_hand(problem)
        found = learned(problem, batch_size=7)
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
    experts = {
        task: {n: t + found.vector[n] if n != "counter" else t for n, t in problem.base.items()}
        for task, found in problem.tasks.items()
    }
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


@pytest.mark.parametrize("batch_size", [1, 7, 128])
def test_every_image_passes_once_for_all_that_is_tried(batch_size: int) -> None:
    told: list[int] = []

    class Counting(Silent):
        def advance(self, count: int = 1) -> None:
            told.append(count)

    problem, options = (
        planted(1),
        MergeRecipe.of("greedy_soup", {"batch_size": batch_size}).options,
    )
    found = greedy_soup.MERGER.learn(problem, options, 0, Counting())
    assert sum(told) == greedy_soup.MERGER.images_to_pass(problem, options) == 7 * 78
    assert max(told) == min(batch_size, 30)
    assert found.history == learned(problem).history
