"""A small problem with labels to learn from, in float64, and who counts the images that pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from taskgrid.machine.meter import Silent
from taskgrid.merging.learning import LearningProblem, LearningTask
from taskgrid.models.heads import Head
from taskgrid.store.weights import State

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


class Counting(Silent):
    def __init__(self) -> None:
        self.counts: list[int] = []

    def advance(self, count: int = 1) -> None:
        self.counts.append(count)


def errors_of(problem: LearningProblem, theta: Mapping[str, np.ndarray], task: str) -> int:
    """How many of a task's images a model gets wrong, in NumPy."""
    found, count = problem.tasks[task], COUNTS[task]
    x = found.inputs(np.arange(count)).numpy().reshape(count, -1)
    features = np.tanh(x @ theta["first"]) @ theta["second"]
    guess = (features @ found.head.weight.numpy().T).argmax(axis=1)
    assert found.labels is not None
    return int((guess != found.labels.numpy()).sum())


def experts_of(problem: LearningProblem) -> dict[str, State]:
    return {
        task: {n: t + found.vector[n] if n != "counter" else t for n, t in problem.base.items()}
        for task, found in problem.tasks.items()
    }
