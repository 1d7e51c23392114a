from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from taskgrid.errors import LineageError, TrainingError
from taskgrid.machine.meter import Silent
from taskgrid.merging import merge
from taskgrid.merging.bases.descent import add_gradient
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods import adamerging
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources, learned_names
from taskgrid.models.heads import Head
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State, digest_state
from tests.unit.merging.methods.awkward import Arrays, states, task_vectors

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


@pytest.mark.parametrize("level", ["task", "layer"])
def test_the_gradient_is_that_of_finite_differences(level: str) -> None:
    problem, names = small_problem(), ["bias", "first", "second"]
    assert learned_names(problem.base) == names
    shape = (3,) if level == "layer" else ()
    at = {
        task: torch.full(shape, 0.3 + 0.1 * i, dtype=torch.float64, requires_grad=True)
        for i, task in enumerate(TASKS)
    }
    rows = dict.fromkeys(TASKS, np.arange(IMAGES))
    loss = add_gradient(problem, at, rows, adamerging.entropy)

    values = {task: dict.fromkeys(names, 0.3 + 0.1 * i) for i, task in enumerate(TASKS)}
    assert loss == pytest.approx(objective(problem, values), abs=1e-12)
    groups = [[name] for name in names] if level == "layer" else [names]
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


def checked(**options: object) -> Options:
    return MergeRecipe.of("adamerging", {"steps": 20, "lr": 0.01, **options}).options


def learned(problem: LearningProblem, seed: int = 0, **options: object) -> Learning:
    return adamerging.MERGER.learn(problem, checked(**options), seed, Silent())


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


@pytest.mark.parametrize("level", ["task", "layer"])
def test_learning_moves_the_coefficients_that_make_it_sure(level: str) -> None:
    found = learned(planted(), level=level)
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
    merged = merge("adamerging", problem.base, experts, 1.0, learned=begun.coefficients)
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


def test_lambda_multiplies_what_was_learned_and_a_point_does_so_by_task() -> None:
    problem = small_problem(torch.float32)
    experts = {
        task: {n: t + found.vector[n] if n != "counter" else t for n, t in problem.base.items()}
        for task, found in problem.tasks.items()
    }
    found = {"a": torch.tensor(0.25, dtype=torch.float64), "b": torch.tensor([0.5, 0.75, 1.0])}
    assert digest_state(merge("adamerging", problem.base, experts, 0.0, learned=found)) == (
        digest_state(problem.base)
    )
    for scale, by in ((0.5, {"a": 0.5, "b": 0.5}), ({"a": -1.0, "b": 2.0}, {"a": -1.0, "b": 2.0})):
        merged = merge("adamerging", problem.base, experts, scale, learned=found)
        for place, name in enumerate(["bias", "first", "second"]):
            start = problem.base[name].double()
            total = torch.zeros_like(start)
            for task in TASKS:
                one = float(found[task][place]) if task == "b" else 0.25
                total += by[task] * one * (experts[task][name] - problem.base[name]).double()
            assert torch.allclose(merged[name], (start + total).float(), rtol=0, atol=1e-6), name


def elected(arrays: Arrays, density: float) -> Arrays:
    """The entries that TIES trims to and elects, by sorting."""
    names = list(next(iter(arrays.values())))
    trimmed: Arrays = {}
    for task, vector in arrays.items():
        sizes = np.sort(np.concatenate([np.abs(vector[name]).ravel() for name in names]))
        least = sizes[max(len(sizes) - int(density * len(sizes)), 1) - 1]
        trimmed[task] = {name: np.where(np.abs(v) >= least, v, 0) for name, v in vector.items()}
    signs = {name: np.sign(sum(vector[name] for vector in trimmed.values())) for name in names}
    majority = -1.0 if sum(sign.sum() for sign in signs.values()) < 0 else 1.0
    return {
        task: {
            name: np.where(v * np.where(signs[name] == 0, majority, signs[name]) > 0, v, 0)
            for name, v in vector.items()
        }
        for task, vector in trimmed.items()
    }


@settings(max_examples=50)
@given(arrays=task_vectors(), density=st.sampled_from([0.2, 0.5, 1.0]))
def test_the_plus_plus_adds_what_ties_elects(arrays: Arrays, density: float) -> None:
    base = {n: torch.zeros(a.shape, dtype=torch.float64) for n, a in arrays[min(arrays)].items()}
    names = sorted(base)
    found = {
        task: torch.linspace(0.25, 1.0, len(names), dtype=torch.float64) + place
        for place, task in enumerate(sorted(arrays))
    }
    point = {task: 1.0 + place for place, task in enumerate(sorted(arrays))}
    recipe = MergeRecipe.of("adamerging", {"trim": "ties", "density": density})
    sources = Sources(states(arrays).__getitem__, learned=lambda tasks: found)
    direction = recipe.prepare(base, sources, sorted(arrays), point)
    for place, name in enumerate(names):
        expected = sum(
            point[task] * float(found[task][place]) * vector[name]
            for task, vector in sorted(elected(arrays, density).items())
        )
        np.testing.assert_allclose(direction[name].numpy(), expected, rtol=0, atol=1e-12)
    assert recipe.scope == "model" and MergeRecipe.of("adamerging", {}).scope == "element"


def test_the_plus_plus_learns_with_what_ties_elects() -> None:
    problem = small_problem()
    arrays = {
        task: {name: tensor.numpy() for name, tensor in found.vector.items()}
        for task, found in problem.tasks.items()
    }
    by_hand = {
        task: replace(
            problem.tasks[task], vector={name: torch.from_numpy(a) for name, a in vector.items()}
        )
        for task, vector in elected(arrays, 0.4).items()
    }
    found = learned(problem, trim="ties", density=0.4)
    assert found.history == learned(replace(problem, tasks=by_hand)).history
    assert found.history != learned(problem).history


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


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    problem = small_problem()
    problem.tasks["a"].vector["bias"].fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"the loss of a\+b is nan at step 0; lower"):
        learned(problem)


def test_images_to_pass_are_those_that_are_told() -> None:
    told: list[int] = []

    class Counting(Silent):
        def advance(self, count: int = 1) -> None:
            told.append(count)

    problem, options = small_problem(), checked(steps=3, batch_size=5)
    adamerging.MERGER.learn(problem, options, 0, Counting())
    assert sum(told) == adamerging.MERGER.images_to_pass(problem, options) == 30
