from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.machine.meter import Silent
from taskgrid.merging import merge
from taskgrid.merging.bases.descent import add_gradient
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods import atlas
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.heads import Head
from taskgrid.plugins.options import Options
from tests.unit.merging.methods.test_adamerging import IMAGES, TASKS, network, small_problem

NAMES = ("bias", "first", "second")


def labelled(seed: int = 0) -> LearningProblem:
    random, problem = np.random.default_rng(seed), small_problem()
    tasks = {
        name: replace(task, labels=torch.from_numpy(random.integers(0, 3, IMAGES)))
        for name, task in problem.tasks.items()
    }
    return replace(problem, tasks=tasks)


def checked(**options: object) -> Options:
    return MergeRecipe.of("atlas", options).options


def learned(problem: LearningProblem, seed: int = 0, **options: object) -> Learning:
    return atlas.MERGER.learn(problem, checked(**options), seed, Silent())


def objective(problem: LearningProblem, by_hand: Mapping[str, NDArray[np.float64]]) -> float:
    """The sum over tasks of the mean cross-entropy at coefficients per task and tensor, written out."""
    state = {name: problem.base[name].numpy() for name in NAMES}
    for place, name in enumerate(NAMES):
        for task in TASKS:
            state[name] = state[name] + by_hand[task][place] * (
                problem.tasks[task].vector[name].numpy()
            )
    total = 0.0
    for task in TASKS:
        own = problem.tasks[task]
        assert own.labels is not None
        features = network(
            {name: torch.from_numpy(a) for name, a in state.items()}, own.inputs(np.arange(IMAGES))
        ).numpy()
        logits = (
            features / np.linalg.norm(features, axis=1, keepdims=True) @ own.head.weight.numpy().T
        )
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        total -= np.log(p[np.arange(IMAGES), own.labels.numpy()]).mean()
    return float(total)


def test_the_gradient_is_that_of_finite_differences() -> None:
    problem, random = labelled(), np.random.default_rng(1)
    at = {task: random.uniform(-0.5, 0.5, 3) for task in TASKS}
    leaves = {task: torch.from_numpy(at[task].copy()).requires_grad_() for task in TASKS}
    rows = dict.fromkeys(TASKS, np.arange(IMAGES))
    loss = add_gradient(problem, leaves, rows, atlas.cross_entropy_of(problem))
    assert loss == pytest.approx(objective(problem, at), abs=1e-12)
    for task in TASKS:
        found = leaves[task].grad
        assert found is not None
        for place in range(3):
            step = 1e-5 * (np.arange(3) == place)
            up, down = (objective(problem, at | {task: at[task] + s * step}) for s in (1, -1))
            assert abs(up - down) > 1e-8
            assert float(found[place]) == pytest.approx((up - down) / 2e-5, rel=1e-5)


def planted() -> LearningProblem:
    """Features (1, x): three of four images are of the first class, whose odds are 3 at x = 1/2."""
    odds = math.log(3) / (2 * 0.5 / math.sqrt(1.25))

    def features(state: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        x = state["x"].expand(len(inputs), 1)
        return torch.cat([torch.ones_like(x), x], dim=1)

    def task(step: float) -> LearningTask:
        head = Head(torch.tensor([[0.0, odds], [0.0, -odds]], dtype=torch.float64), ("y", "z"), {})
        vector = {"x": torch.tensor([step]).double(), "unused": torch.ones(2).double()}
        labels = torch.tensor([0, 0, 1, 0])
        return LearningTask(vector, head, 4, lambda rows: torch.zeros(len(rows), 3, 1, 1), labels)

    base = {"x": torch.zeros(1).double(), "unused": torch.zeros(2).double()}
    return LearningProblem(base, {"idle": task(0.0), "moves": task(2.0)}, features)


def test_it_finds_the_planted_coefficients() -> None:
    found = learned(planted(), steps=400, lr=0.02, batch_size=4, weight_decay=0)
    # In the order of names: `unused`, `x`. Where nothing is gained nothing moves.
    assert found.coefficients["moves"].tolist() == [0.0, pytest.approx(0.25, abs=1e-3)]
    assert found.coefficients["idle"].tolist() == [0.0, 0.0]
    expected = 2 * -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.history[0] == (0, pytest.approx(2 * math.log(2)))
    assert found.history[-1] == (399, pytest.approx(expected, abs=1e-5))


def test_weights_decay_towards_the_base() -> None:
    free, held = (
        learned(planted(), steps=400, lr=0.02, batch_size=4, weight_decay=decay)
        for decay in (0, 2.0)
    )
    assert (
        0.05 < float(held.coefficients["moves"][1]) < float(free.coefficients["moves"][1]) - 0.005
    )


def test_a_merge_is_lambda_times_what_was_learned() -> None:
    problem = planted()
    experts = {
        task: {name: tensor + found.vector[name] for name, tensor in problem.base.items()}
        for task, found in problem.tasks.items()
    }
    coefficients = {"idle": torch.tensor([3.0, 5.0]), "moves": torch.tensor([0.5, 0.25])}
    merged = merge("atlas", problem.base, experts, 0.5, learned=coefficients)
    assert merged["x"].tolist() == [0.25] and merged["unused"].tolist() == [1.75, 1.75]
    assert merge("atlas", problem.base, experts, learned=coefficients)["x"].tolist() == [0.5]


def test_shots_are_so_many_of_each_class() -> None:
    labels = np.array([0, 1, 0, 2, 0, 1, 0, 0])
    found = [atlas.shots(labels, 2, seed) for seed in range(20)]
    for rows in found:
        assert list(rows) == sorted(set(rows))
        assert sorted(labels[rows]) == [0, 0, 1, 1, 2]
    assert len({tuple(rows) for rows in found}) > 1
    assert list(atlas.shots(labels, 2, 0)) == list(found[0])
    assert list(atlas.shots(labels, None, 0)) == list(range(8))


def test_no_label_is_looked_at_but_those_of_the_shots() -> None:
    problem = labelled()

    def with_labels(labels: NDArray[np.int64]) -> LearningProblem:
        tasks = {
            name: replace(task, labels=torch.from_numpy(labels))
            for name, task in problem.tasks.items()
        }
        return replace(problem, tasks=tasks)

    labels = np.arange(IMAGES) % 3
    first = learned(with_labels(labels), steps=5, shots=1, batch_size=3)
    again = learned(with_labels(labels), steps=5, shots=1, batch_size=3)
    assert first.history == again.history
    assert first.history != learned(with_labels(labels), steps=5, shots=4, batch_size=3).history
    assert first.history != learned(with_labels(labels), 1, steps=5, shots=1, batch_size=3).history

    seen: set[int] = set()

    def watching(rows: NDArray[np.int64]) -> torch.Tensor:
        seen.update(rows.tolist())
        return problem.tasks["a"].inputs(rows)

    watched = with_labels(labels)
    task = replace(watched.tasks["a"], inputs=watching)
    learned(replace(watched, tasks={"a": task}), steps=9, shots=1, batch_size=2)
    assert len(seen) == 3


def test_images_to_pass_are_those_that_are_told() -> None:
    told: list[int] = []

    class Counting(Silent):
        def advance(self, count: int = 1) -> None:
            told.append(count)

    problem, options = labelled(), checked(steps=3, batch_size=5)
    atlas.MERGER.learn(problem, options, 0, Counting())
    assert sum(told) == atlas.MERGER.images_to_pass(problem, options) == 30


def test_it_has_no_option_for_other_images() -> None:
    with pytest.raises(ConfigError, match="has no option 'images'"):
        checked(images="test")
    with pytest.raises(ConfigError, match="shots"):
        checked(shots=0)
