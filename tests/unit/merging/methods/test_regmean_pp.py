"""RegMean++ against NumPy: a tower written out by hand, and least squares on explicit activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging import merge
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods.regmean_pp import MERGER, layers_of
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.heads import Head
from taskgrid.models.tower import build_tower
from taskgrid.statistics.gram import collect
from taskgrid.store.weights import State
from tests.unit.example_grid import SIZE, World, world

Array = NDArray[np.float64]
Solve = Callable[[list[Array], list[Array]], Array]

PATCH, WIDTH, HEADS, BLOCKS, IMAGES = 4, 16, 2, 2, 30
TASKS = ("a", "b")
SHARED = ("class_embedding", "positional_embedding")


class Counter:
    """A tally that can be read."""

    total = 0

    def advance(self, count: int = 1) -> None:
        self.total += count


@pytest.fixture(scope="module")
def small() -> World:
    return world(TASKS, val=2, test=2)


def pictures(task: str) -> torch.Tensor:
    random = np.random.default_rng(TASKS.index(task))
    # Of unlike brightness: activations of the two tasks differ.
    drawn = random.normal(size=(IMAGES, 3, SIZE, SIZE)) * (1 + TASKS.index(task))
    return torch.from_numpy(drawn)


def problem_of(small: World, tasks: tuple[str, ...] = TASKS) -> LearningProblem:
    """In float64 throughout."""
    tower = build_tower(small.card).double()
    base = {key: tensor.double() for key, tensor in small.base.items()}
    head = Head(torch.ones(1, 12), ("one",), {})

    def task_of(task: str) -> LearningTask:
        vector = {key: small.experts[task][key].double() - base[key] for key in base}
        shown = pictures(task)
        return LearningTask(vector, head, IMAGES, lambda rows: shown[torch.from_numpy(rows)])

    def features(state: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(tower, dict(state), (images,))
        return found

    return LearningProblem(base, {task: task_of(task) for task in tasks}, features, tower=tower)


def learned(problem: LearningProblem, seed: int = 0, **options: Any) -> Learning:
    checked = MergeRecipe.of("regmean_pp", {"count": IMAGES, "batch_size": 7, **options}).options
    tally = Counter()
    found = MERGER.learn(problem, checked, seed, tally)
    assert tally.total == MERGER.images_to_pass(problem, checked)
    return found


def as_map(key: str, weight: Array) -> Array:
    return weight if key == "proj" else weight.reshape(len(weight), -1).T


def norm(weights: Mapping[str, Array], name: str, rows: Array) -> Array:
    centred = rows - rows.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])


def patches(images: Array) -> Array:
    side = SIZE // PATCH
    cut = images.reshape(IMAGES, 3, side, PATCH, side, PATCH).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(IMAGES, side * side, 3 * PATCH * PATCH)


def embed(weights: Mapping[str, Array], images: Array) -> Array:
    rows = patches(images) @ as_map("conv1.weight", weights["conv1.weight"])
    first = np.broadcast_to(weights["class_embedding"], (IMAGES, 1, WIDTH))
    rows = np.concatenate([first, rows], axis=1) + weights["positional_embedding"]
    return norm(weights, "ln_pre", rows)


def block(weights: Mapping[str, Array], name: str, rows: Array) -> tuple[Array, dict[str, Array]]:
    """What a block hands on, and the inputs of its maps."""

    def through(key: str, bias: str, given: Array) -> Array:
        inputs[f"{name}.{key}"] = given.reshape(-1, given.shape[-1])
        return np.asarray(given @ as_map(key, weights[f"{name}.{key}"]) + weights[f"{name}.{bias}"])

    inputs: dict[str, Array] = {}
    seen = norm(weights, f"{name}.ln_1", rows)
    joint = through("attn.in_proj_weight", "attn.in_proj_bias", seen)
    query, key, value = joint.reshape(IMAGES, -1, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
    scores = np.exp(query @ key.transpose(0, 1, 3, 2) / np.sqrt(WIDTH // HEADS))
    mixed = (scores / scores.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3)
    rows = rows + through(
        "attn.out_proj.weight", "attn.out_proj.bias", mixed.reshape(IMAGES, -1, WIDTH)
    )
    hidden = through("mlp.c_fc.weight", "mlp.c_fc.bias", norm(weights, f"{name}.ln_2", rows))
    bent = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
    return rows + through("mlp.c_proj.weight", "mlp.c_proj.bias", bent), inputs


def least_squares(inputs: list[Array], maps: list[Array]) -> Array:
    outputs = [rows @ one for rows, one in zip(inputs, maps, strict=True)]
    return np.linalg.lstsq(np.concatenate(inputs), np.concatenate(outputs), rcond=None)[0]


def shrunk(inputs: list[Array], maps: list[Array]) -> Array:
    grams = [0.95 * rows.T @ rows + 0.05 * np.diag((rows**2).sum(0)) for rows in inputs]
    right = sum(gram @ one for gram, one in zip(grams, maps, strict=True))
    return np.asarray(np.linalg.inv(sum(grams)) @ right)


def by_hand(small: World, solve: Solve) -> dict[str, Array]:
    experts = [
        {key: tensor.double().numpy() for key, tensor in small.experts[task].items()}
        for task in TASKS
    ]
    merged = {key: np.mean([expert[key] for expert in experts], axis=0) for key in experts[0]}

    def solved(key: str, inputs: list[Array]) -> None:
        found = solve(inputs, [as_map(key, expert[key]) for expert in experts])
        merged[key] = (found if key == "proj" else found.T).reshape(merged[key].shape)

    images = [pictures(task).numpy() for task in TASKS]
    solved("conv1.weight", [patches(one).reshape(-1, 3 * PATCH * PATCH) for one in images])
    rows = [embed(merged, one) for one in images]
    for number in range(BLOCKS):
        name = f"transformer.resblocks.{number}"
        seen = [block(expert, name, one)[1] for expert, one in zip(experts, rows, strict=True)]
        for key in seen[0]:
            solved(key, [inputs[key] for inputs in seen])
        rows = [block(merged, name, one)[0] for one in rows]
    solved(
        "proj",
        [norm(expert, "ln_post", one[:, 0]) for expert, one in zip(experts, rows, strict=True)],
    )
    return merged


@pytest.mark.parametrize(("off_diagonal", "solve"), [(1.0, least_squares), (0.95, shrunk)])
def test_layer_by_layer_on_what_merged_layers_hand_on(
    small: World, off_diagonal: float, solve: Solve
) -> None:
    found = learned(problem_of(small), off_diagonal=off_diagonal)
    merged = merge("regmean_pp", small.base, small.experts, learned=found.learned)
    wanted = by_hand(small, solve)
    for key, tensor in merged.items():
        np.testing.assert_allclose(tensor.numpy(), wanted[key], rtol=0, atol=2e-6, err_msg=key)


def test_the_first_layer_is_regmeans_and_later_ones_are_not(small: World) -> None:
    problem = problem_of(small)
    grams: dict[str, State] = {}
    for task, found in problem.tasks.items():
        state = {key: small.experts[task][key].double() for key in small.base}

        def forward(
            images: torch.Tensor, own: Mapping[str, torch.Tensor], state: State = state
        ) -> torch.Tensor:
            return problem.features({**state, **own}, images)

        assert problem.tower is not None
        shown = [found.inputs(np.arange(IMAGES))]
        grams[task] = collect(problem.tower, shown, forward)
    given: dict[str, Any] = {"statistics": {"gram": grams}}
    regmean = merge("regmean", small.base, small.experts, 1.0, **given)
    # Gram matrices given by hand are solved for as they are.
    as_given = merge("regmean_pp", small.base, small.experts, 1.0, **given)
    assert all(torch.equal(as_given[key], regmean[key]) for key in regmean)
    plus = merge("regmean_pp", small.base, small.experts, learned=learned(problem).learned)
    assert torch.allclose(plus["conv1.weight"], regmean["conv1.weight"], rtol=0, atol=1e-6)
    for key in ("transformer.resblocks.1.mlp.c_fc.weight", "proj"):
        assert float((plus[key] - regmean[key]).abs().max()) > 1e-4


def test_lambda_and_coefficients_weigh_the_parts(small: World) -> None:
    parts = learned(problem_of(small)).learned
    found = merge("regmean_pp", small.base, small.experts, {"a": 0.5, "b": -1.0}, learned=parts)
    for key, tensor in found.items():
        wanted = (
            small.base[key].double() + 0.5 * parts[f"a/{key}"] - 1.0 * parts[f"b/{key}"].double()
        )
        torch.testing.assert_close(tensor.double(), wanted, rtol=0, atol=1e-6)


def test_one_expert_is_found_again(small: World) -> None:
    parts = learned(problem_of(small, ("a",))).learned
    found = merge("regmean_pp", small.base, {"a": small.experts["a"]}, learned=parts)
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, small.experts["a"][key], rtol=0, atol=2e-6)


def test_images_are_drawn_from_the_seed(small: World) -> None:
    problem = problem_of(small)
    first, again, other = (learned(problem, seed, count=9).tensors for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_layers_are_walked_in_the_order_in_which_images_pass_them(small: World) -> None:
    layers = layers_of(small.base | {"counter": torch.tensor(3)})
    assert len(layers) == BLOCKS + 2 and {*SHARED, "conv1.weight"} <= {*layers[0]}
    for number in range(BLOCKS):
        assert all(key.startswith(f"transformer.resblocks.{number}.") for key in layers[1 + number])
    assert {*layers[-1]} == {"ln_post.weight", "ln_post.bias", "proj"}


def test_what_cannot_be_done_is_said(small: World) -> None:
    with pytest.raises(LineageError, match=r"learns from images.*or the statistic 'gram'"):
        merge("regmean_pp", small.base, small.experts, 1.0)
    with pytest.raises(ConfigError, match="tangent model has no merged layers; use 'regmean'"):
        learned(replace(problem_of(small), tower=None))
    with pytest.raises(ConfigError, match="off_diagonal"):
        merge("regmean_pp", small.base, small.experts, off_diagonal=2.0)
