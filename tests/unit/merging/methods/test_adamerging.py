from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch.nn import functional

from taskgrid.errors import LineageError, TrainingError
from taskgrid.machine.meter import Silent
from taskgrid.merging import merge
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods import adamerging
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import learned_names
from taskgrid.models.heads import Head
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State, digest_state

DIM, CLASSES, IMAGES = 5, 3, 12
TASKS = ("a", "b")


def network(state: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """A small network of its own, to be differentiated by what it is given."""
    hidden = torch.tanh(inputs.flatten(1) @ state["first"])
    return hidden @ state["second"] + state["bias"]


def random_state(seed: int, size: float, dtype: torch.dtype) -> State:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first": (12, DIM), "second": (DIM, DIM), "bias": (DIM,)}
    return {
        name: (size * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
        for name, shape in shapes.items()
    }


def small_problem(dtype: torch.dtype = torch.float64) -> LearningProblem:
    def task(seed: int) -> LearningTask:
        generator = torch.Generator().manual_seed(100 + seed)
        inputs = torch.randn(IMAGES, 3, 2, 2, generator=generator, dtype=torch.float64).to(dtype)
        weight = 4 * functional.normalize(
            torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64), dim=-1
        )
        head = Head(weight.to(dtype), tuple("xyz"), {})
        vector = random_state(seed, 0.5, dtype)
        return LearningTask(vector, head, IMAGES, lambda rows: inputs[torch.from_numpy(rows)])

    base = random_state(0, 0.7, dtype) | {"counter": torch.tensor(3)}
    return LearningProblem(base, {name: task(1 + i) for i, name in enumerate(TASKS)}, network)


def objective(problem: LearningProblem, by_hand: Mapping[str, Mapping[str, float]]) -> float:
    """The sum over tasks of the mean entropy at coefficients per task and tensor, written out."""
    state = dict(problem.base)
    for name in ("first", "second", "bias"):
        for task in TASKS:
            state[name] = state[name] + by_hand[task][name] * problem.tasks[task].vector[name]
    total = 0.0
    for task in TASKS:
        inputs = problem.tasks[task].inputs(np.arange(IMAGES))
        features = network(state, inputs)
        features = features / features.norm(dim=-1, keepdim=True)
        p = torch.softmax(features @ problem.tasks[task].head.weight.T, dim=-1).numpy()
        total += float(-(p * np.log(p)).sum() / IMAGES)
    return total


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_the_gradient_is_that_of_finite_differences(granularity: str) -> None:
    problem, names = small_problem(), ["bias", "first", "second"]
    assert learned_names(problem.base) == names
    shape = (3,) if granularity == "layer" else ()
    at = {
        task: torch.full(shape, 0.3 + 0.1 * i, dtype=torch.float64, requires_grad=True)
        for i, task in enumerate(TASKS)
    }
    rows = dict.fromkeys(TASKS, np.arange(IMAGES))
    loss = adamerging.add_gradient(problem, at, rows)

    values = {task: dict.fromkeys(names, 0.3 + 0.1 * i) for i, task in enumerate(TASKS)}
    assert loss == pytest.approx(objective(problem, values), abs=1e-12)
    groups = [[name] for name in names] if granularity == "layer" else [names]
    for task in TASKS:
        slopes = []
        for group in groups:
            moved = {
                sign: {
                    t: {n: v + sign * 1e-5 * (t == task and n in group) for n, v in each.items()}
                    for t, each in values.items()
                }
                for sign in (-1, 1)
            }
            slopes.append((objective(problem, moved[1]) - objective(problem, moved[-1])) / 2e-5)
        found = at[task].grad
        assert found is not None and float(found.abs().min()) > 1e-4
        np.testing.assert_allclose(found.reshape(-1).numpy(), slopes, rtol=1e-6, atol=1e-9)


def learned(problem: LearningProblem, seed: int = 0, **options: object) -> Learning:
    checked = MergeRecipe.of("adamerging", {"steps": 20, "lr": 0.01, **options}).options
    return adamerging.MERGER.learn(problem, checked, seed, Silent())


def planted() -> LearningProblem:
    """Task ``good`` moves the features away from where two classes tie; task ``idle`` does nothing."""

    def features(state: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        return state["shift"] + 0 * inputs.flatten(1)[:, :2]

    def task(shift: list[float]) -> LearningTask:
        head = Head(4 * torch.eye(2), tuple("xy"), {})
        return LearningTask(
            {"shift": torch.tensor(shift)}, head, 4, lambda rows: torch.zeros(len(rows), 3, 1, 1)
        )

    tasks = {"bad": task([-1.0, 0.0]), "good": task([2.0, 0.0]), "idle": task([0.0, 0.0])}
    return LearningProblem({"shift": torch.tensor([1.0, 1.0])}, tasks, features)


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_learning_moves_the_coefficients_that_make_it_sure(granularity: str) -> None:
    found = learned(planted(), granularity=granularity)
    # Adam's steps have about the length of the learning rate while the sign of the slope stays.
    assert float(found.coefficients["good"]) == pytest.approx(0.5, abs=0.01)
    assert float(found.coefficients["bad"]) == pytest.approx(0.1, abs=0.01)
    assert float(found.coefficients["idle"]) == 0.3
    losses = [loss for _, loss in found.history]
    assert [step for step, _ in found.history] == list(range(20))
    assert all(later < before for before, later in itertools.pairwise(losses))


def test_coefficients_are_kept_between_zero_and_one_unless_told_otherwise() -> None:
    assert float(learned(planted(), steps=60).coefficients["bad"]) == 0.0
    assert float(learned(planted(), steps=60, clamp=False).coefficients["bad"]) < -0.1


def test_without_a_step_it_is_task_arithmetic_at_the_beginning() -> None:
    problem = small_problem(torch.float32)
    begun = learned(problem, steps=0)
    assert begun.history == ()
    experts = {
        task: {n: t + found.vector[n] if n != "counter" else t for n, t in problem.base.items()}
        for task, found in problem.tasks.items()
    }
    merged = merge("adamerging", problem.base, experts, learned=begun.coefficients)
    assert digest_state(merged) == digest_state(
        merge("task_arithmetic", problem.base, experts, 0.3)
    )


def test_a_merge_is_what_was_learned_times_the_vectors() -> None:
    problem = small_problem(torch.float32)
    experts = {
        task: {n: t + found.vector[n] if n != "counter" else t for n, t in problem.base.items()}
        for task, found in problem.tasks.items()
    }
    found = learned(problem).coefficients
    assert {one.shape for one in found.values()} == {(3,)}
    merged = merge("adamerging", problem.base, experts, learned=found)
    for place, name in enumerate(["bias", "first", "second"]):
        start = problem.base[name].double()
        by_hand = start + sum(
            float(found[task][place]) * (experts[task][name] - problem.base[name]).double()
            for task in TASKS
        )
        assert torch.equal(merged[name], by_hand.float()), name
    assert torch.equal(merged["counter"], problem.base["counter"])


def test_what_was_learned_for_other_tensors_is_refused() -> None:
    problem = small_problem(torch.float32)
    experts = {"a": problem.base}
    with pytest.raises(LineageError, match=r"shape \(4,\), but the base has 3 floating tensors"):
        merge("adamerging", problem.base, experts, learned={"a": torch.ones(4)})


def test_one_seed_gives_the_same_bits_and_another_one_other_batches() -> None:
    problem = small_problem(torch.float32)
    first, again, other = (learned(problem, seed, batch_size=5) for seed in (0, 0, 1))
    assert first.history == again.history
    assert all(torch.equal(first.coefficients[t], again.coefficients[t]) for t in TASKS)
    assert first.history != other.history


def test_batches_are_passes_over_all_images() -> None:
    batches = adamerging._batches(7, 3, seed=0)
    rows = np.concatenate([next(batches) for _ in range(7)])
    assert [sorted(rows[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert next(adamerging._batches(2, 5, seed=0)).shape == (5,)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    problem = small_problem()
    problem.tasks["a"].vector["bias"].fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"the entropy of a\+b is nan at step 0; lower"):
        learned(problem)


def test_images_to_pass_are_those_that_are_told() -> None:
    told: list[int] = []

    class Counting(Silent):
        def advance(self, count: int = 1) -> None:
            told.append(count)

    options = Options({**MergeRecipe.of("adamerging", {"steps": 3, "batch_size": 5}).options})
    problem = small_problem()
    adamerging.MERGER.learn(problem, options, 0, Counting())
    assert sum(told) == adamerging.MERGER.images_to_pass(problem, options) == 30
