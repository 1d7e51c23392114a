"""Slerp, multi-slerp, Karcher mean and Model Stock against their formulas, on whole vectors in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.merging import merge
from taskgrid.merging.bases.sphere import cosines, gram
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, states, task_vectors

Vector = NDArray[np.float64]
WEIGHTS = {"w": 0.5, "x": 1.0, "y": 2.0, "z": 0.25}


def unit(v: Vector) -> Vector:
    size = np.linalg.norm(v)
    return v / size if size else v


def slerp(points: list[Vector], t: float) -> Vector:
    a, b = points
    cosine = float(np.clip(unit(a) @ unit(b), -1, 1))
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def multi_slerp(points: list[Vector], weights: list[float]) -> Vector:
    """As mergekit has it, tangent step and all."""
    shares = np.array(weights) / sum(weights)
    units = [unit(p) for p in points]
    mean = sum(s * u for s, u in zip(shares, units, strict=True))
    if np.linalg.norm(mean) < 1e-8:
        return np.asarray(sum(s * p for s, p in zip(shares, points, strict=True)))
    mean = unit(mean)
    step = sum(s * (u - (u @ mean) * mean) for s, u in zip(shares, units, strict=True))
    size = np.linalg.norm(step) + 1e-8
    found = mean * math.cos(size) + step * math.sin(size) / size
    return found * sum(s * np.linalg.norm(p) for s, p in zip(shares, points, strict=True))


def karcher(points: list[Vector], weights: list[float], max_iter: int, tol: float) -> Vector:
    shares = np.array(weights) / sum(weights)
    there = [(s, unit(p)) for s, p in zip(shares, points, strict=True) if np.linalg.norm(p) > tol]
    if not there:
        return np.zeros_like(points[0])
    total = sum(s for s, _ in there)
    mean = sum(s / total * u for s, u in there)
    mean = unit(mean) if np.linalg.norm(mean) >= tol else there[0][1]
    for _ in range(max_iter):
        step = np.zeros_like(mean)
        for share, u in there:
            angle = math.acos(np.clip(u @ mean, -1, 1))
            if math.sin(angle) >= tol:
                step += share / total * angle / math.sin(angle) * (u - (u @ mean) * mean)
        size = np.linalg.norm(step)
        if size < tol:
            break
        mean = unit(math.cos(size) * mean + math.sin(size) * step / size)
    return mean * sum(s * np.linalg.norm(p) for s, p in zip(shares, points, strict=True))


def model_stock(points: list[Vector], mean_of: str) -> Vector:
    count = len(points)
    if count == 1:
        return points[0]
    pairs = [
        float(np.clip(unit(points[i]) @ unit(points[j]), -1, 1))
        for i in range(count)
        for j in range(i)
    ]
    cosine = float(np.mean(pairs))
    if mean_of == "angles":
        cosine = math.cos(np.mean([math.acos(pair) for pair in pairs]))
    under = 1 + (count - 1) * cosine
    share = count * cosine / under if abs(under) >= 1e-8 else 0.0
    return share * sum(points) / count


def by_tensor(
    arrays: Arrays, combine: Callable[[list[Vector]], Vector], base: dict[str, Vector] | None = None
) -> dict[str, Vector]:
    """What is added to the base."""
    found = {}
    for name, shape in SHAPES.items():
        start = np.zeros(shape) if base is None else base[name]
        points = [(start + arrays[task][name]).ravel() for task in sorted(arrays)]
        combined = points[0] if len(points) == 1 else combine(points)
        found[name] = combined.reshape(shape) - start
    return found


def assert_close(
    found: dict[str, Vector], expected: dict[str, Vector], by: float = 1.0, within: float = 1e-9
) -> None:
    for name in SHAPES:
        np.testing.assert_allclose(found[name], by * expected[name], rtol=within, atol=within)


def the_only(found: dict[str | None, dict[str, Vector]]) -> dict[str, Vector]:
    (one,) = found.values()
    return one


@settings(max_examples=40)
@given(
    arrays=task_vectors().filter(lambda arrays: len(arrays) > 1),
    t=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    scale=st.sampled_from([1.0, 0.4, -2.0]),
)
def test_slerp(arrays: Arrays, t: float, scale: float) -> None:
    two = {task: arrays[task] for task in sorted(arrays)[:2]}
    found = the_only(models("slerp", two, scale, t=t))
    assert_close(found, by_tensor(two, lambda points: slerp(points, t)), scale)


@settings(max_examples=40)
@given(arrays=task_vectors(), weighted=st.booleans(), scale=st.sampled_from([1.0, 0.4, -2.0]))
def test_multi_slerp(arrays: Arrays, weighted: bool, scale: float) -> None:
    weights = [WEIGHTS[task] if weighted else 1.0 for task in sorted(arrays)]
    said = {"weights": WEIGHTS} if weighted else {}
    found = the_only(models("multi_slerp", arrays, scale, **said))
    assert_close(found, by_tensor(arrays, lambda points: multi_slerp(points, weights)), scale)


@settings(max_examples=40)
@given(
    arrays=task_vectors(),
    weighted=st.booleans(),
    max_iter=st.sampled_from([0, 1, 10]),
    tol=st.sampled_from([1e-5, 1e-2]),
)
def test_karcher(arrays: Arrays, weighted: bool, max_iter: int, tol: float) -> None:
    weights = [WEIGHTS[task] if weighted else 1.0 for task in sorted(arrays)]
    said = {"max_iter": max_iter, "tol": tol} | ({"weights": WEIGHTS} if weighted else {})
    found = the_only(models("karcher", arrays, **said))
    expected = by_tensor(arrays, lambda points: karcher(points, weights, max_iter, tol))
    assert_close(found, expected)


@settings(max_examples=40)
@given(
    arrays=task_vectors(),
    mean_of=st.sampled_from(["angles", "cosines"]),
    rows=st.booleans(),
    scale=st.sampled_from([1.0, -2.0]),
)
def test_model_stock(arrays: Arrays, mean_of: str, rows: bool, scale: float) -> None:
    found = the_only(models("model_stock", arrays, scale, mean_of=mean_of, rows=rows))

    def combine(points: list[Vector]) -> Vector:
        return model_stock(points, mean_of)

    expected = by_tensor(arrays, combine)
    if rows:
        by_row = zip(*(arrays[task]["a"] for task in sorted(arrays)), strict=True)
        expected["a"] = np.stack([combine(list(points)) for points in by_row])
    # Of a cosine of one, the angle is known to half of its digits.
    assert_close(found, expected, scale, within=1e-9 if mean_of == "cosines" else 1e-7)


CASES: list[tuple[str, dict[str, Any], Callable[[list[Vector]], Vector]]] = [
    ("slerp", {"t": 0.3}, lambda points: slerp(points, 0.3)),
    ("multi_slerp", {}, lambda points: multi_slerp(points, [1.0, 1.0])),
    ("karcher", {}, lambda points: karcher(points, [1.0, 1.0], 10, 1e-5)),
]


@pytest.mark.parametrize(("method", "options", "combine"), CASES)
@pytest.mark.parametrize("size", [0.01, 3.0])
def test_on_weights(
    method: str, options: dict[str, Any], combine: Callable[[list[Vector]], Vector], size: float
) -> None:
    random = np.random.default_rng(0)
    base = {name: random.normal(size=shape) for name, shape in SHAPES.items()}
    arrays = {
        task: {
            name: np.zeros(shape)
            if name == "frozen"
            else (size * random.normal(size=shape)).astype(np.float32).astype(np.float64)
            for name, shape in SHAPES.items()
        }
        for task in "xy"
    }
    start = {name: torch.tensor(array) for name, array in base.items()}
    recipe = MergeRecipe.of(method, {"on": "weights", **options})
    prepared = recipe.prepare(start, Sources(states(arrays).__getitem__), "xy")
    found = recipe.apply(start, prepared, 1.0)
    expected = by_tensor(arrays, combine, base)
    moved = {name: found[name].numpy() - base[name] for name in SHAPES}
    assert_close(moved, expected)
    # Where no expert moved, nothing moves, to the last bit.
    assert torch.equal(found["frozen"], start["frozen"])


@pytest.mark.parametrize("method", ["slerp", "multi_slerp", "karcher", "model_stock"])
def test_copies_give_the_expert_back(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(5, 7, generator=generator)}
    expert = {"w": base["w"] + 2.0**-5 * torch.randn(5, 7, generator=generator)}
    for count in (2,) if method == "slerp" else (1, 2, 5):
        found = merge(method, base, {f"task{i}": expert for i in range(count)}, 1.0)
        torch.testing.assert_close(found["w"], expert["w"], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("method", ["slerp", "multi_slerp", "karcher"])
def test_two_at_a_right_angle_meet_half_way_and_keep_their_length(method: str) -> None:
    arrays = {
        task: {name: np.zeros(shape) for name, shape in SHAPES.items()} | {"b": np.array(b)}
        for task, b in (("x", [2.0, 0, 0, 0, 0]), ("y", [0, 2.0, 0, 0, 0]))
    }
    found = the_only(models(method, arrays))
    np.testing.assert_allclose(found["b"], [math.sqrt(2), math.sqrt(2), 0, 0, 0], atol=1e-12)
    assert not any(found[name].any() for name in ("a", "c", "frozen"))


def test_a_karcher_mean_is_where_its_gradient_vanishes() -> None:
    random = np.random.default_rng(1)
    arrays = {
        task: {n: (1 + random.random(shape)).astype(np.float32) for n, shape in SHAPES.items()}
        for task in "xyz"
    }
    mean = unit(the_only(models("karcher", arrays, max_iter=100, tol=1e-12))["a"].ravel())
    gradient = np.zeros(12)
    for vector in arrays.values():
        u = unit(vector["a"].astype(np.float64).ravel())
        angle = math.acos(u @ mean)
        gradient += angle / math.sin(angle) * (u - (u @ mean) * mean)
    assert np.linalg.norm(gradient) < 1e-7


def test_opposite_vectors_are_no_numbers_nowhere() -> None:
    arrays = {
        task: {name: np.full(shape, value) for name, shape in SHAPES.items()}
        for task, value in (("x", 0.5), ("y", -0.5))
    }
    for method in ("slerp", "multi_slerp", "model_stock"):
        assert not any(array.any() for array in the_only(models(method, arrays)).values())
    # On the sphere every point between them is as good; the first begins and stays.
    np.testing.assert_allclose(the_only(models("karcher", arrays))["b"], 0.5, rtol=1e-12)


def test_model_stock_is_not_clamped() -> None:
    arrays = {
        task: {name: np.zeros(shape) for name, shape in SHAPES.items()} | {"b": np.array(b)}
        for task, b in (("x", [1.0, 0, 0, 0, 0]), ("y", [-1.0, 0.5, 0, 0, 0]))
    }
    cosine = -1 / math.sqrt(1.25)
    found = the_only(models("model_stock", arrays))["b"]
    np.testing.assert_allclose(found[1], 0.25 * 2 * cosine / (1 + cosine), rtol=1e-12)


@pytest.mark.parametrize("rows", [False, True])
def test_gram_matrices_do_not_depend_on_how_they_are_cut(
    rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(3, 4, 5, generator=generator) for _ in range(3)]
    origin = torch.randn(3, 4, 5, generator=generator)
    points = torch.stack([v.double() + origin.double() for v in vectors])
    flat = points.view(3, 12, 5).transpose(0, 1) if rows else points.view(3, 60)
    for at_once in (1, 7, 1 << 16):
        monkeypatch.setattr("taskgrid.merging.bases.sphere._AT_ONCE", at_once)
        torch.testing.assert_close(gram(vectors, origin, rows=rows), flat @ flat.mT)
    empty = gram([torch.zeros(0)] * 2, rows=rows)
    assert not empty.any() and not cosines(empty).any()


@pytest.mark.parametrize(
    ("method", "options", "text"),
    [
        ("slerp", {"t": 1.5}, "option 't' of merge method 'slerp'"),
        ("slerp", {"weights": {"x": 1}}, "has no option"),
        ("slerp", {"on": "logits"}, "allowed: task_vectors, weights"),
        ("multi_slerp", {"weights": {"x": -1, "y": 2}}, "it must be at least 0"),
        ("multi_slerp", {"weights": {"x": 0, "y": 0}}, "add up to zero"),
        ("multi_slerp", {"weights": {"x": 1}}, "names no weight for task 'y'"),
        ("karcher", {"weights": {"x": 0, "y": 1}}, "it must be more than 0"),
        ("karcher", {"tol": 0}, "it must be more than 0"),
        ("karcher", {"max_iter": -1}, "it must be at least 0"),
        ("model_stock", {"mean_of": "both"}, "allowed: angles, cosines"),
        ("model_stock", {"rows": 1}, "true or false"),
    ],
)
def test_wrong_options(method: str, options: dict[str, Any], text: str) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {"w": torch.ones(3)}
    experts = {task: {"w": torch.randn(3, generator=generator)} for task in "xy"}
    with pytest.raises(ConfigError, match=text):
        merge(method, state, experts, **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("slerp", {"t": 0.3}),
        ("multi_slerp", {"on": "weights"}),
        ("karcher", {"on": "weights"}),
        ("model_stock", {"rows": True}),
    ],
)
def test_tensors_one_after_the_other_give_the_same_bits(
    method: str, options: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    vectors = {
        task: {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for task in "xy"
    }
    recipe = MergeRecipe.of(method, options)
    assert recipe.scope == "tensor"
    whole = recipe.prepare(base, Sources(vectors.__getitem__), "xy")
    for name in SHAPES:
        one = {task: {name: vector[name]} for task, vector in vectors.items()}
        alone = recipe.prepare({name: base[name]}, Sources(one.__getitem__), "xy")
        assert alone.keys() == {name} and torch.equal(alone[name], whole[name])
