"""Methods that are weighted sums: task arithmetic and averaging, against float64 in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taskgrid.errors import ConfigError
from taskgrid.lattice.points import format_lambda, lambda_value
from taskgrid.merging import merge
from taskgrid.merging.bases.additive import Additive
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.models import ImageEncoder
from taskgrid.models.inference import features_of
from taskgrid.store.weights import State, digest_state
from taskgrid.vectors import TaskVector, subtract
from tests.unit.example_mergers import near
from tests.unit.example_models import SIZE, tiny_clip

ADDITIVE = ("task_arithmetic", "average")
LAMBDAS = (-1.0, 0.0, 0.05, 0.3, 1.0, 2.0)


@pytest.fixture
def base(tmp_path: Path) -> State:
    return tiny_clip(tmp_path).visual_state() | {"counter": torch.tensor([5])}


@pytest.fixture
def experts(base: State) -> dict[str, State]:
    return {task: near(base, seed) for seed, task in enumerate(("svhn", "dtd", "mnist", "cars"))}


def coefficient(method: str, scale: float, count: int) -> float:
    return {"task_arithmetic": scale, "average": scale / count}[method]


def brute_force(method: str, base: State, experts: dict[str, State], scale: float) -> State:
    """The formula in NumPy, in float64, from the weights themselves."""
    merged = {}
    for name, tensor in base.items():
        if not tensor.is_floating_point():
            merged[name] = tensor
            continue
        start = tensor.numpy().astype(np.float64)
        total = np.sum(
            [e[name].numpy().astype(np.float64) - start for e in experts.values()], axis=0
        )
        merged[name] = torch.from_numpy(start + coefficient(method, scale, len(experts)) * total)
    return merged


def rounding(base: State, experts: dict[str, State], weight: float) -> dict[str, torch.Tensor]:
    """What rounding each task vector to float32 can move a merge by."""
    return {
        name: 2.0**-24
        * abs(weight)
        * sum((e[name].double() - tensor.double()).abs() for e in experts.values())
        for name, tensor in base.items()
        if tensor.is_floating_point()
    }


def close(ours: State, exact: State, slack: dict[str, torch.Tensor]) -> bool:
    """Whether ``ours`` is ``exact`` rounded once, but for the slack of each weight."""
    return all(
        bool(
            (
                (ours[name].double() - exact[name].double()).abs()
                <= (2.0**-24 * exact[name].double().abs() + slack[name]) * 1.001 + 2.0**-149
            ).all()
        )
        if name in slack
        else torch.equal(ours[name], exact[name])
        for name in exact
    )


@pytest.mark.parametrize("method", ADDITIVE)
@pytest.mark.parametrize("scale", LAMBDAS)
def test_methods_against_brute_force(
    method: str, scale: float, base: State, experts: dict[str, State]
) -> None:
    slack = rounding(base, experts, coefficient(method, scale, len(experts)))
    exact = brute_force(method, base, experts, scale)
    assert close(merge(method, base, experts, scale), exact, slack)


@pytest.mark.parametrize("method", ADDITIVE)
def test_law_one_expert_at_lambda_one_is_that_expert(method: str, base: State) -> None:
    # The expert's weights are near the base's, so their difference is exact but for sign changes.
    expert = near(base, 3)
    merged = merge(method, base, {"mnist": expert}, 1.0)
    exact = {
        name: (expert[name] - base[name]).double() == expert[name].double() - base[name].double()
        for name in base
    }
    assert all(torch.equal(merged[n][exact[n]], expert[n][exact[n]]) for n in base)
    assert np.mean([m.double().mean().item() for m in exact.values()]) > 0.9
    wide = {
        n: torch.maximum(base[n].abs(), expert[n].abs())
        for n in base
        if base[n].is_floating_point()
    }
    assert all(((merged[n] - expert[n]).abs() <= 2.0**-23 * wide[n]).all() for n in wide)


def test_law_average_of_copies_is_the_copy(base: State) -> None:
    expert = near(base, 3)
    copies = dict.fromkeys(("a", "b", "c", "d"), expert)
    assert digest_state(merge("average", base, copies, 1.0)) == digest_state(
        merge("average", base, {"a": expert}, 1.0)
    )


def test_average_at_lambda_one_is_the_mean(base: State, experts: dict[str, State]) -> None:
    mean = {
        name: torch.stack([expert[name].double() for expert in experts.values()]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in base.items()
    }
    assert close(merge("average", base, experts, 1.0), mean, rounding(base, experts, 1 / 4))


def test_apply_drives_a_resident_encoder(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    base = clip.visual_state()
    experts = {task: near(base, seed, 0.1) for seed, task in enumerate(("a", "b"))}
    recipe = MergeRecipe.of("task_arithmetic", {})
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    prepared = recipe.prepare(base, Sources(vectors.__getitem__), sorted(experts))
    resident = ImageEncoder.from_card(clip.card(), base)
    pixels = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8)
    seen = []
    for scale in (0.0, 0.5, 1.0):
        recipe.apply(base, prepared, scale, out=resident.live_state())
        fresh = ImageEncoder.from_card(clip.card(), merge("task_arithmetic", base, experts, scale))
        seen.append(features_of(resident, pixels))
        assert torch.equal(seen[-1], features_of(fresh, pixels))
    assert not torch.equal(seen[0], seen[1])


def test_task_arithmetic_is_the_sum_of_task_vectors(base: State, experts: dict[str, State]) -> None:
    weights = {name: tensor for name, tensor in base.items() if tensor.is_floating_point()}
    vectors = [TaskVector.between(weights, {n: e[n] for n in weights}) for e in experts.values()]
    by_hand = TaskVector.sum(vectors).apply_to(weights, 0.3)
    merged = merge("task_arithmetic", base, experts, 0.3)
    assert close(merged, by_hand, rounding(weights, experts, 3 * 0.3))


WEIGHTS = {"svhn": 0.1, "dtd": -1.5, "mnist": 1 / 3, "cars": 2.0}
POINT = {"svhn": 0.5, "dtd": 0.25, "mnist": -1.0, "cars": 0.3}


@pytest.mark.parametrize(
    ("method", "options", "by_hand"),
    [
        ("task_arithmetic", {}, lambda w, c: c),
        ("task_arithmetic", {"weights": WEIGHTS}, lambda w, c: w * c),
        ("task_arithmetic", {"weights": WEIGHTS, "normalize": True}, lambda w, c: w * c / w.sum()),
        ("task_arithmetic", {"normalize": True}, lambda w, c: c / 4),
        ("average", {}, lambda w, c: c / 4),
        ("average", {"weights": WEIGHTS}, lambda w, c: w * c / w.sum()),
    ],
)
@pytest.mark.parametrize("point", [{}, POINT])
def test_an_additive_method_is_the_sum_its_weights_say(
    method: str,
    options: dict[str, Any],
    by_hand: Any,
    point: dict[str, float],
    base: State,
    experts: dict[str, State],
) -> None:
    recipe, tasks = MergeRecipe.of(method, options), sorted(experts)
    assert isinstance(recipe.merger, Additive)
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    prepared = recipe.prepare(base, Sources(vectors.__getitem__), tasks, point)
    given = np.array([WEIGHTS[task] for task in tasks])
    exact = by_hand(given, np.array([point.get(task, 1.0) for task in tasks]))
    weights = recipe.merger.weights(tasks, recipe.options, point)
    assert list(weights) == tasks
    np.testing.assert_allclose(list(weights.values()), exact, rtol=1e-15)
    for name, tensor in prepared.items():
        rows = [vectors[task][name].numpy().astype(np.float64) for task in tasks]
        total = sum(w * row for w, row in zip(exact, rows, strict=True))
        np.testing.assert_allclose(tensor.numpy(), total, rtol=1e-12, atol=1e-17)


def test_weights_that_do_not_make_sense_are_refused(base: State, experts: dict[str, State]) -> None:
    with pytest.raises(ConfigError, match="`weights` names no weight for task 'cars'"):
        merge("average", base, experts, weights={"dtd": 1.0})
    opposite = {"svhn": 1.0, "dtd": -1.0, "mnist": 2.0, "cars": -2.0}
    with pytest.raises(ConfigError, match=r"weights of cars\+dtd\+mnist\+svhn add up to zero"):
        merge("task_arithmetic", base, experts, weights=opposite, normalize=True)


def test_todays_bits_of_the_additive_methods() -> None:
    # Rows in people's stores were measured on merges with these bits.
    random = np.random.default_rng(11)

    def state() -> State:
        return {
            name: torch.from_numpy(random.standard_normal(shape).astype(np.float32))
            for name, shape in (("a", (5, 7)), ("b", (11,)))
        }

    base = state()
    experts = {task: state() for task in ("x", "y", "z")}
    found = {
        method: [digest_state(merge(method, base, experts, scale)) for scale in (0.3, 1.0)]
        for method in ADDITIVE
    }
    assert found == {
        "task_arithmetic": [
            "8c11af3f1ee6ab904e25e0b91b8e805e",
            "1edbf37d9e525b274f6dc4ed75e18ba5",
        ],
        "average": ["58a78f9f0dda2ce90f5e222309f011ac", "5eaff0f1818268c9a4cd3229e742b70e"],
    }


def test_the_sum_is_not_rounded_in_between() -> None:
    # Added in float32, the small one would vanish beside the first.
    experts = {
        task: {"w": torch.tensor([x])} for task, x in (("a", 1.0), ("b", 2.0**-25), ("c", -1.0))
    }
    merged = merge("task_arithmetic", {"w": torch.tensor([0.0])}, experts, 1.0)
    assert merged["w"].item() == 2.0**-25


def test_lambdas_as_text_change_nothing(base: State, experts: dict[str, State]) -> None:
    text = format_lambda(0.1 + 0.2)
    assert digest_state(merge("average", base, experts, lambda_value(text))) == digest_state(
        merge("average", base, experts, 0.3)
    )


def test_half_precision_bases(experts: dict[str, State], base: State) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in base.items()}
    halves = {
        task: {n: t.half() if t.is_floating_point() else t for n, t in expert.items()}
        for task, expert in experts.items()
    }
    merged = merge("task_arithmetic", half, halves, 0.3)
    exact = brute_force("task_arithmetic", half, halves, 0.3)
    for name, tensor in exact.items():
        if tensor.is_floating_point():
            assert torch.equal(merged[name], tensor.half())
