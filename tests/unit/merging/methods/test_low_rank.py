"""KnOTS and Core Space against their formulas in NumPy, on experts as LoRA leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging import merge
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.store.weights import State, digest_state

Array: TypeAlias = NDArray[np.float64]
Factors: TypeAlias = dict[str, dict[str, tuple[Array, Array]]]
"""task -> tensor -> (B, A)."""

METHODS = ("knots", "core_space")
QKV = "transformer.resblocks.0.attn.in_proj_weight"
OUT = "transformer.resblocks.0.attn.out_proj.weight"
SHAPES = {QKV: (48, 16), OUT: (16, 16), "mlp.weight": (40, 16), "frozen": (9, 16), "bias": (16,)}
RANKS = {QKV: 3, OUT: 2, "mlp.weight": 2}


def made(tasks: Sequence[str] = "abc") -> tuple[State, Factors, dict[str, State]]:
    """Return a base, factors, and experts in float64; one task leaves a matrix alone, one has zeros."""
    random = np.random.default_rng(0)
    base = {key: torch.from_numpy(random.normal(size=shape)) for key, shape in SHAPES.items()}
    base["counter"] = torch.tensor([5])
    factors: Factors = {}
    for task in tasks:
        factors[task] = {}
        for key, rank in RANKS.items():
            rows, columns = SHAPES[key]
            b, a = random.normal(size=(rows, rank)), random.normal(size=(rank, columns))
            factors[task][key] = b * np.geomspace(0.3, 0.1, rank), a
    del factors[tasks[-1]]["mlp.weight"]
    factors[tasks[0]][OUT][0][:5] = 0
    return base, factors, {task: expert_of(base, each) for task, each in factors.items()}


def expert_of(base: State, factors: dict[str, tuple[Array, Array]]) -> State:
    found = {key: tensor.clone() for key, tensor in base.items()}
    for key, (b, a) in factors.items():
        found[key] += torch.from_numpy(b @ a)
    return found


def changes(base: State, experts: dict[str, State], key: str) -> list[Array]:
    """What is between experts and base, as float32, which vectors are kept in."""
    return [(experts[task][key] - base[key]).float().double().numpy() for task in sorted(experts)]


def ties(stacked: Array, density: float, combine: str = "mean") -> Array:
    """TIES on rows: cut by sorting, a sign for each column, what agrees is combined."""
    count = stacked.shape[1]
    kept = min(int(density * count) + 1, count)
    cut = np.sort(np.abs(stacked), axis=1)[:, count - kept][:, None]
    trimmed = np.where(np.abs(stacked) >= cut, stacked, 0)
    agrees = trimmed * np.sign(trimmed.sum(axis=0)) > 0
    chosen = np.where(agrees, trimmed, 0)
    if combine == "max":
        return chosen[np.abs(chosen).argmax(axis=0), np.arange(count)]
    total = chosen.sum(axis=0)
    return total / np.maximum(agrees.sum(axis=0), 1) if combine == "mean" else total


def together(entries: list[list[Array]], density: float, combine: str, trim: str) -> list[Array]:
    """Merge matrices of tasks by TIES: ``entries[matrix][task]``."""
    if trim == "tensor" and len(entries) > 1:
        return [together([each], density, combine, trim)[0] for each in entries]
    rows = np.stack([np.concatenate([each[t].ravel() for each in entries]) for t in range(3)])
    merged = ties(rows, density, combine)
    ends = np.cumsum([each[0].size for each in entries])[:-1]
    shapes = [each[0].shape for each in entries]
    return [m.reshape(s) for m, s in zip(np.split(merged, ends), shapes, strict=True)]


def knots_space(matrices: list[Array], scaled: bool) -> tuple[Array, list[Array], Array]:
    left, sizes, right = np.linalg.svd(np.concatenate(matrices, axis=1), full_matrices=False)
    # float32 changes: what is smaller is rounding.
    kept = sizes > 1e-5
    left, sizes, right = left[:, kept], sizes[kept], right[kept]
    parts = np.split(right, len(matrices), axis=1)
    if scaled:
        return left, [sizes[:, None] * part for part in parts], np.eye(parts[0].shape[1])
    return left * sizes, parts, np.eye(parts[0].shape[1])


def core_space(matrices: list[Array]) -> tuple[Array, list[Array], Array]:
    bs, as_ = [], []
    for matrix in matrices:
        left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
        rank = int((sizes > 1e-5).sum())
        bs.append(left[:, :rank] * np.sqrt(sizes[:rank]))
        as_.append(np.sqrt(sizes[:rank])[:, None] * right[:rank])
    left = np.linalg.svd(np.concatenate(bs, axis=1), full_matrices=False)[0]
    right = np.linalg.svd(np.concatenate(as_), full_matrices=False)[2]
    return left, [left.T @ m @ right.T for m in matrices], right


def check(method: str, scale: float = 0.7, **options: Any) -> None:
    base, _, experts = made()
    found = merge(method, base, experts, scale, **options)
    split = options.get("qkv") == "split"
    spaces, places = [], []
    for key in RANKS:
        for rows in (
            [slice(0, 16), slice(16, 32), slice(32, 48)] if split and key == QKV else [slice(None)]
        ):
            matrices = [matrix[rows] for matrix in changes(base, experts, key)]
            places.append((key, rows))
            spaces.append(
                knots_space(matrices, options.get("scaled", False))
                if method == "knots"
                else core_space(matrices)
            )
    trim = options.get("trim", "global" if method == "knots" else "tensor")
    merged = together(
        [entries for _, entries, _ in spaces],
        options.get("density", 0.2),
        options.get("combine", "mean"),
        trim,
    )
    wanted = {key: tensor.double().numpy().copy() for key, tensor in base.items()}
    for (key, rows), (left, _, right), entries in zip(places, spaces, merged, strict=True):
        wanted[key][rows] += scale * left @ entries @ right
    for key in SHAPES:
        np.testing.assert_allclose(found[key].numpy(), wanted[key], rtol=0, atol=2e-6, err_msg=key)
    assert not np.allclose(wanted[QKV], base[QKV].numpy(), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"density": 0.5},
        {"density": 1.0, "combine": "sum"},
        {"combine": "max", "density": 0.3},
        {"trim": "tensor"},
        {"trim": "global"},
        {"qkv": "split", "density": 0.4},
    ],
)
def test_the_formula(method: str, options: dict[str, Any]) -> None:
    check(method, **options)


def test_the_code_of_knots_scales_what_it_merges() -> None:
    check("knots", scaled=True)
    check("knots", scaled=True, density=0.6, trim="tensor")


@pytest.mark.parametrize("method", METHODS)
def test_the_sum_is_task_arithmetic_bit_for_bit(method: str) -> None:
    base, _, experts = made()
    for scale in (0.3, -1.0, {"a": 0.5, "b": -0.3, "c": 1.7}):
        found = merge(method, base, experts, scale, of="sum")
        assert digest_state(found) == digest_state(merge("task_arithmetic", base, experts, scale))


@pytest.mark.parametrize("method", METHODS)
def test_an_expert_alone_and_its_copies_come_back(method: str) -> None:
    base, _, experts = made()
    alone = experts["a"]
    for given in ({"a": alone}, {"a": alone, "b": alone, "c": alone}):
        found = merge(method, base, given, 1.0, density=1.0)
        for key in SHAPES:
            np.testing.assert_allclose(found[key].numpy(), alone[key].numpy(), rtol=0, atol=2e-6)
    assert digest_state(merge(method, base, {"a": alone}, 1.0, of="sum")) == digest_state(
        merge("task_arithmetic", base, {"a": alone}, 1.0)
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_choice_of_factors_does_not_matter(method: str) -> None:
    base, factors, experts = made()
    turn = np.array([[2.0, 1.0], [0.5, -3.0]])
    for each in factors.values():
        b, a = each[OUT]
        each[OUT] = b @ turn, np.linalg.inv(turn) @ a
    others = {task: expert_of(base, each) for task, each in factors.items()}
    one, other = (merge(method, base, given, 1.0, density=0.5) for given in (experts, others))
    for key in SHAPES:
        np.testing.assert_allclose(one[key].numpy(), other[key].numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_opposite_experts_cancel_and_a_still_one_changes_no_sum(method: str) -> None:
    base, factors, experts = made()
    opposite = {key: (-b, a) for key, (b, a) in factors["a"].items()}
    given = {"a": experts["a"], "b": expert_of(base, opposite), "c": dict(base)}
    found = merge(method, base, given, 1.0, density=1.0, combine="sum")
    assert all(torch.isfinite(found[key]).all() for key in SHAPES)
    found = merge(method, base, given, 1.0, of="sum")
    for key in SHAPES:
        np.testing.assert_allclose(found[key].numpy(), base[key].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("of", ["ties", "sum"])
def test_experts_that_are_no_lora_experts_are_refused(method: str, of: str) -> None:
    base, _, experts = made()
    torch.manual_seed(0)
    experts["b"][OUT] = base[OUT] + 0.01 * torch.randn(16, 16)
    words = r"expert 'b' is no LoRA expert: its change of '.*out_proj.weight' \(16 x 16\) has a rank above 8"
    with pytest.raises(LineageError, match=words):
        merge(method, base, experts, of=of)
    _, _, experts = made()
    experts["c"]["bias"] += 1
    with pytest.raises(LineageError, match="no LoRA expert: it moves 'bias', which is no matrix"):
        merge(method, base, experts, of=of)


@pytest.mark.parametrize("method", METHODS)
def test_scopes_and_wrong_words(method: str) -> None:
    def scope(**options: Any) -> str:
        return MergeRecipe.of(method, options).scope

    assert scope(of="sum") == scope(trim="tensor") == "tensor"
    assert scope(trim="global") == "model"
    for options in ({"of": "mean"}, {"trim": "row"}, {"density": 0}, {"qkv": "both"}):
        with pytest.raises(ConfigError):
            MergeRecipe.of(method, options)
