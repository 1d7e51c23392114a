"""FS-Merge: loss, gradient and what is learned, on open_clip's own tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from taskgrid.alignment.supernet import supernet
from taskgrid.errors import LineageError, TrainingError
from taskgrid.machine.meter import Silent
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods import fs_merge
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.models.heads import Head
from taskgrid.models.tower import build_tower
from taskgrid.store.weights import State
from taskgrid.vectors import subtract
from tests.unit.example_grid import SIZE, world
from tests.unit.merging.methods.labelled import Counting, planted

TASKS = ("a", "b", "c")
COUNT = 24


def inputs_of(seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator)


@cache
def towers(dtype: torch.dtype = torch.float32) -> LearningProblem:
    """A random tower, experts near it, images of noise."""
    small = world(TASKS)
    tower = build_tower(small.card).to(dtype)

    def features(state: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(tower, dict(state), (images,))
        return found

    def task(place: int, name: str) -> LearningTask:
        images = inputs_of(place, COUNT).to(dtype)
        vector = {
            key: one.to(dtype)
            for key, one in subtract(small.base, small.experts[name], name).items()
        }
        head = Head(torch.zeros(4, 12), tuple("wxyz"), {})
        return LearningTask(vector, head, COUNT, lambda rows: images[torch.from_numpy(rows)])

    base = {key: one.to(dtype) for key, one in small.base.items()}
    tasks = {name: task(place, name) for place, name in enumerate(TASKS)}
    return LearningProblem(base, tasks, features, tower=tower)


def experts_of(problem: LearningProblem) -> dict[str, State]:
    return {
        task: {key: one + found.vector[key] for key, one in problem.base.items()}
        for task, found in problem.tasks.items()
    }


def mean_of(states: Mapping[str, State]) -> State:
    first = next(iter(states.values()))
    return {key: torch.stack([one[key] for one in states.values()]).mean(0) for key in first}


def learned(problem: LearningProblem, seed: int = 0, **options: Any) -> Learning:
    asked = {"steps": 4, "batch_size": 5, "rank": 2, **options}
    recipe = MergeRecipe.of("fs_merge", asked)
    return fs_merge.MERGER.learn(problem, recipe.options, seed, Silent())


def distances(problem: LearningProblem, found: Learning, images: torch.Tensor) -> list[float]:
    """How far the merged model is from each expert on some images, with its output map."""
    state = {key: found.tensors[f"merged/{key}"] for key in problem.base}
    return [
        float(
            functional.mse_loss(
                problem.features(state, images) @ found.tensors[f"output/{task}"].T,
                problem.features(expert, images),
            )
        )
        for task, expert in experts_of(problem).items()
    ]


@pytest.mark.parametrize("init", ["average", "first"])
def test_it_begins_with_the_distance_of_the_start_to_the_experts(init: str) -> None:
    problem, experts = towers(), experts_of(towers())
    start, wanted = mean_of(experts) if init == "average" else experts["a"], 0.0
    for task, expert in experts.items():
        images = problem.tasks[task].inputs(np.arange(COUNT))
        apart = problem.features(start, images) - problem.features(expert, images)
        wanted += float(apart.double().square().mean()) / len(TASKS)
    # A batch that has every image once.
    found = learned(problem, init=init, batch_size=COUNT)
    assert wanted > 0.01 and found.history[0] == (0, pytest.approx(wanted, rel=1e-4))
    assert [step for step, _ in found.history] == list(range(4))


def test_without_a_step_it_is_the_start() -> None:
    problem = towers()
    experts = experts_of(problem)
    for init, start in (("first", experts["a"]), ("average", mean_of(experts))):
        found = learned(problem, init=init, steps=0)
        assert not found.history and not found.coefficients
        for key, one in start.items():
            exact = {"rtol": 0, "atol": 0} if init == "first" else {"rtol": 1e-6, "atol": 1e-6}
            torch.testing.assert_close(found.tensors[f"merged/{key}"], one, **exact)
        for task in TASKS:
            assert torch.equal(found.tensors[f"output/{task}"], torch.eye(12))


def test_the_gradient_is_that_of_one_graph() -> None:
    problem = towers(torch.float64)
    experts = experts_of(problem)
    net = supernet([*experts.values()], "average", 2, 0, torch.float64)
    with torch.no_grad():
        for place, leaf in enumerate(net.leaves()):
            leaf += 0.05 * torch.linspace(-1, 1, leaf.numel()).roll(place).reshape(leaf.shape)
    batch, whole = {}, torch.zeros((), dtype=torch.float64)
    for place, task in enumerate(TASKS):
        rows = np.arange(3 + place)
        images = problem.tasks[task].inputs(rows)
        theirs = problem.features(experts[task], images)
        batch[task] = rows, theirs
        ours = problem.features(net.folded(), images) @ net.output.dense()[place].T
        whole = whole + ((ours - theirs) ** 2).mean() / len(TASKS)
    leaves = [*net.leaves()]
    expected = torch.autograd.grad(whole, leaves)
    loss = fs_merge.add_gradient(problem, net, batch)
    assert loss == pytest.approx(float(whole.detach()), rel=1e-12)
    for leaf, slope in zip(leaves, expected, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("init", "rank"), [("average", 4), ("first", 0)])
def test_a_hundred_steps_beat_the_average_on_images_that_were_not_seen(
    init: str, rank: int
) -> None:
    problem, unseen = towers(), inputs_of(77, 64)
    found = learned(problem, init=init, rank=rank, steps=100, batch_size=12, lr=0.01)
    losses = [loss for _, loss in found.history]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    average = distances(problem, learned(problem, init="average", steps=0), unseen)
    after = distances(problem, found, unseen)
    assert np.mean(after) < 0.8 * np.mean(average)


def test_one_seed_gives_the_same_bits() -> None:
    first, again, other = (learned(towers(), seed) for seed in (0, 0, 1))
    assert first.history == again.history
    names = {f"merged/{key}" for key in towers().base} | {f"output/{task}" for task in TASKS}
    assert set(first.tensors) == names
    for name, tensor in first.tensors.items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, again.tensors[name])
    assert any(not torch.equal(one, other.tensors[name]) for name, one in first.tensors.items())


@pytest.mark.parametrize(("count", "seen"), [(10, 30), (900, 72)])
def test_images_that_pass_are_told(count: int, seen: int) -> None:
    told = Counting()
    options = MergeRecipe.of("fs_merge", {"steps": 3, "batch_size": 4, "count": count}).options
    fs_merge.MERGER.learn(towers(), options, 0, told)
    expected = seen + 3 * 4 * 3
    assert sum(told.counts) == fs_merge.MERGER.images_to_pass(towers(), options) == expected


def test_one_expert_is_left_as_it_is() -> None:
    problem = replace(towers(), tasks={"b": towers().tasks["b"]})
    found = learned(problem, steps=50)
    for key, one in experts_of(problem)["b"].items():
        assert torch.equal(found.tensors[f"merged/{key}"], one)
    assert torch.equal(found.tensors["output/b"], torch.eye(12)) and not found.history


def test_the_merge_is_what_was_learned_and_features_are_mapped() -> None:
    problem = towers()
    tensors = learned(problem).tensors
    vectors = {task: found.vector for task, found in problem.tasks.items()}
    sources = Sources(vectors.__getitem__, learned=lambda _: tensors)
    recipe = MergeRecipe.of("fs_merge", {})
    base = {**problem.base, "counter": torch.tensor(3)}
    prepared = recipe.prepare(base, sources, TASKS)
    out = {key: torch.zeros_like(one) for key, one in base.items()}
    assert recipe.apply(base, prepared, 1.0, out=out) is out
    fresh = recipe.apply(base, prepared, 1.0)
    for key in problem.base:
        assert torch.equal(out[key], tensors[f"merged/{key}"]) and torch.equal(fresh[key], out[key])
        assert fresh[key].data_ptr() != tensors[f"merged/{key}"].data_ptr()
    assert fresh["counter"] == out["counter"] == 3
    z = np.random.default_rng(0).normal(size=(5, 12))
    for task in TASKS:
        after = recipe.feature_merger.features(prepared, task, torch.from_numpy(z).float())
        by_hand = z @ tensors[f"output/{task}"].double().numpy().T
        np.testing.assert_allclose(after.numpy(), by_hand, atol=1e-5)


def test_what_was_learned_for_other_tasks_is_refused() -> None:
    problem = towers()
    vectors = {task: found.vector for task, found in problem.tasks.items()}
    tensors = learned(replace(problem, tasks={t: problem.tasks[t] for t in "ab"})).tensors
    sources = Sources(vectors.__getitem__, learned=lambda _: tensors)
    with pytest.raises(LineageError, match=r"no supernet with 'output/c' was learned for a\+b\+c"):
        MergeRecipe.of("fs_merge", {}).prepare(problem.base, sources, TASKS)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    problem = towers()
    broken = {**problem.tasks["b"].vector, "proj": torch.full((16, 12), torch.nan)}
    tasks = {**problem.tasks, "b": replace(problem.tasks["b"], vector=broken)}
    with pytest.raises(TrainingError, match=r"the loss of a\+b\+c is nan at step 0"):
        learned(replace(problem, tasks=tasks))


def test_networks_that_are_no_vision_transformers_are_refused() -> None:
    with pytest.raises(LineageError, match="'first' is of none of them"):
        learned(planted(0))
