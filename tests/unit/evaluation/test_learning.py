from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taskgrid.errors import ConfigError, LineageError
from taskgrid.evaluation import evaluate_grid, learn_coefficients
from taskgrid.evaluation.learning import learn, learned_file, open_problem
from taskgrid.evaluation.opening.files import load_learned
from taskgrid.evaluation.opening.references import read_learned, read_method
from taskgrid.evaluation.plan.setting import Evaluation, Setting
from taskgrid.machine.progress import Progress
from taskgrid.merging import merge
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.methods.adamerging import add_gradient
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, learned_names
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import logits_of
from taskgrid.models.linearized import LinearizedEncoder
from taskgrid.provenance.digests import digest_file
from taskgrid.store.atomic import write_json
from taskgrid.store.weights import State, save_state
from tests.unit.example_grid import World, held, world

OPTIONS: dict[str, Any] = {"steps": 4, "lr": 0.05, "batch_size": 6}
SUBSET = ("a", "b")


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b"))


def taught(small: World, evaluation: Evaluation = "plain", **options: Any) -> Learned:
    found: Learned = learn_coefficients(
        "adamerging", small.base, small.card, small.tasks, experts=small.experts,
        evaluation=evaluation, **OPTIONS | options,
    )  # fmt: skip
    return found


def entropy(logits: torch.Tensor) -> float:
    logs = torch.log_softmax(logits, dim=-1)
    return float(-(logs.exp() * logs).sum(dim=-1).mean())


@pytest.mark.parametrize("evaluation", ["plain", "tangent"])
def test_the_loss_is_the_entropy_of_the_network_that_is_evaluated(
    small: World, evaluation: Evaluation
) -> None:
    setting = held(small).setting("m", "standard", 0, "fp32", evaluation)
    # A batch of all images: the order does not matter then.
    recipe = MergeRecipe.of("adamerging", {"steps": 1, "batch_size": 13})
    found = learn(held(small).material(), setting, recipe, SUBSET, torch.device("cpu"), Progress)
    merged = merge("task_arithmetic", small.base, small.experts, 0.3)
    if evaluation == "plain":
        encoder: ImageEncoder = ImageEncoder.from_card(small.card, merged)
    else:
        encoder = LinearizedEncoder.from_card(small.card, small.base)
        encoder.load(merged)
    expected = sum(
        entropy(logits_of(encoder, task.head, task.val[0])) for task in small.tasks.values()
    )
    ((step, loss),) = found.history
    assert step == 0 and loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("evaluation", ["plain", "tangent"])
def test_the_gradient_through_the_tower_is_that_of_finite_differences(
    small: World, evaluation: Evaluation
) -> None:
    setting = held(small).setting("m", "standard", 0, "fp32", evaluation)
    problem = in_double(
        open_problem(held(small).material(), setting, SUBSET, "val", torch.device("cpu"))
    )
    random = torch.Generator().manual_seed(0)
    names = learned_names(problem.base)
    at, along = (
        {task: torch.rand(len(names), generator=random, dtype=torch.float64) for task in SUBSET}
        for _ in range(2)
    )
    rows = {task: np.arange(13) for task in SUBSET}

    def moved(by: float) -> tuple[float, dict[str, torch.Tensor]]:
        leaves = {task: (at[task] + by * along[task]).requires_grad_() for task in SUBSET}
        return add_gradient(problem, leaves, rows), leaves

    slope = (moved(1e-5)[0] - moved(-1e-5)[0]) / 2e-5
    _, leaves = moved(0.0)
    found = 0.0
    for task in SUBSET:
        gradient = leaves[task].grad
        assert gradient is not None
        found += float(gradient @ along[task])
    assert abs(slope) > 1e-3 and found == pytest.approx(slope, rel=1e-6)


def in_double(problem: LearningProblem) -> LearningProblem:
    def double(state: State) -> State:
        return {name: tensor.double() for name, tensor in state.items()}

    tasks = {
        name: replace(
            task,
            vector=double(task.vector),
            head=replace(task.head, weight=task.head.weight.double()),
            inputs=partial(lambda inputs, rows: inputs(rows).double(), task.inputs),
        )
        for name, task in problem.tasks.items()
    }
    problem.features.args[0].double()  # type: ignore[attr-defined]
    return replace(problem, base=double(problem.base), tasks=tasks)


def test_learning_is_deterministic_and_looks_at_the_split_that_is_named(small: World) -> None:
    first, again, test = taught(small), taught(small), taught(small, split="test")
    assert list(first) == ["a", "b"]
    assert all(torch.equal(first[task], again[task]) for task in SUBSET)
    assert any(not torch.equal(first[task], test[task]) for task in SUBSET)


def test_what_was_learned_is_measured_at_its_only_point(small: World) -> None:
    given = taught(small)
    rows = evaluate_grid(
        small.base, small.card, small.tasks, experts=small.experts,
        methods={"adamerging": {**OPTIONS, "split": "test"}},
        subsets=["a+b"], learned={"adamerging": {"a+b": given}},
    )  # fmt: skip
    rows = rows[rows["method"] == "adamerging"]
    assert set(rows["point"]) == {"1.00"} and rows["transductive"].all()
    encoder = ImageEncoder.from_card(
        small.card, merge("adamerging", small.base, small.experts, learned=given)
    )
    for name, task in small.tasks.items():
        images, labels = task.test
        right = logits_of(encoder, task.head, images).argmax(1).numpy() == labels
        found = rows[(rows["task"] == name) & (rows["split"] == "test")]
        assert list(found["correct"]) == [right.sum()]


def test_nothing_is_measured_where_nothing_was_learned(small: World) -> None:
    with pytest.raises(LineageError, match=r"nothing was learned for a\+b by 'adamerging'"):
        evaluate_grid(
            small.base, small.card, small.tasks, experts=small.experts,
            methods=["adamerging"], subsets=["a+b"],
        )  # fmt: skip


def test_a_method_that_learns_nothing_is_refused(small: World) -> None:
    with pytest.raises(ConfigError, match="'average' learns nothing"):
        learn_coefficients("average", small.base, small.card, small.tasks, experts=small.experts)


def file_of(small: World, path: Path, **options: Any) -> Setting:
    setting = held(small).setting("m", "standard", 0, "fp32", "plain")
    recipe = MergeRecipe.of("adamerging", OPTIONS | options)
    found = learn(held(small).material(), setting, recipe, SUBSET, torch.device("cpu"), Progress)
    write_json(path, learned_file(setting, recipe, SUBSET, found))
    save_state(path.with_name("tensors.safetensors"), found.tensors, {"kind": "learned"})
    return setting


def test_equal_inputs_give_equal_bytes_and_the_file_says_where_it_comes_from(
    small: World, tmp_path: Path
) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    setting = file_of(small, one)
    file_of(small, other)
    assert one.read_bytes() == other.read_bytes()
    found = read_learned(setting, "adamerging", OPTIONS, {"a+b": one})
    assert found == {"a+b": digest_file(one)}
    ref = read_method("adamerging", OPTIONS, 0, learned=found)
    assert ref.learned == found and not ref.transductive
    assert read_method("adamerging", {"split": "test"}, 0).transductive

    with pytest.raises(LineageError, match=r"a\+b comes from another options"):
        read_learned(setting, "adamerging", {**OPTIONS, "steps": 5}, {"a+b": one})
    moved = world(("a", "b"), val=12)
    elsewhere = held(moved).setting("m", "standard", 0, "fp32", "plain")
    with pytest.raises(LineageError, match=r"another a\.images.*run the learn rule again"):
        read_learned(elsewhere, "adamerging", OPTIONS, {"a+b": one})


def test_tensors_are_kept_beside_the_coefficients_and_belong_to_them(
    small: World, tmp_path: Path
) -> None:
    setting = held(small).setting("m", "standard", 0, "fp32", "plain")
    recipe, path = MergeRecipe.of("adamerging", OPTIONS), tmp_path / "coefficients.json"
    one = torch.tensor([0.1, 0.2], dtype=torch.float64)
    tensors = {"proj": torch.arange(6.0).reshape(2, 3), "a/down": torch.ones(2).half()}
    learning = Learning({"a": one}, (), tensors)
    write_json(path, learned_file(setting, recipe, SUBSET, learning))
    save_state(tmp_path / "tensors.safetensors", tensors, {"kind": "learned"})
    found = load_learned(path)
    assert list(found) == ["a", "a/down", "proj"]
    expected = learning.learned
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    (first,) = read_learned(setting, "adamerging", OPTIONS, {"a+b": path}).values()

    # Other tensors give another file of coefficients, and so other keys; and are refused beside this one.
    tensors["proj"] = tensors["proj"] + 1
    save_state(tmp_path / "tensors.safetensors", tensors, {"kind": "learned"})
    with pytest.raises(LineageError, match=r"tensors\.safetensors changed"):
        load_learned(path)
    write_json(path, learned_file(setting, recipe, SUBSET, learning))
    assert digest_file(path) != first
    assert torch.equal(load_learned(path)["proj"], tensors["proj"])
