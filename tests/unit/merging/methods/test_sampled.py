"""DARE and DELLA: what is kept, how often, and what becomes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskgrid import plugins
from taskgrid.errors import ConfigError
from taskgrid.merging import merge
from taskgrid.merging.bases.sampling import sample
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.plugins.options import Options
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors

BOTH = pytest.mark.parametrize("method", ["dare", "della"])


def model(method: str, arrays: Arrays, **options: Any) -> dict[str, NDArray[np.float64]]:
    (found,) = models(method, arrays, **options).values()
    return found


def chances(method: str, entries: NDArray[np.float64], **options: Any) -> torch.Tensor:
    said = MergeRecipe.of(method, options).options
    found: torch.Tensor = plugins.load("merger", method).MERGER.chances(
        torch.from_numpy(np.array(entries, np.float32)), Options(said)
    )
    return found


def elected(vectors: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """The mean of the entries that have the sign of their sum; at a sum of zero, the majority's."""
    signs = {n: np.sign(sum(v[n] for v in vectors)) for n in SHAPES}
    otherwise = -1.0 if sum(each.sum() for each in signs.values()) < 0 else 1.0
    found = {}
    for name, sign in signs.items():
        stacked = np.stack([vector[name] for vector in vectors])
        agree = stacked * np.where(sign == 0, otherwise, sign) > 0
        count = np.maximum(agree.sum(axis=0), 1)
        found[name] = np.where(agree, stacked, 0).sum(axis=0) / count
    return found


@settings(max_examples=40)
@given(
    arrays=task_vectors(),
    method=st.sampled_from(["dare", "della"]),
    rescale=st.sampled_from(["inverse", "l1", "none"]),
    combine=st.sampled_from(["sum", "ties"]),
)
def test_what_a_task_keeps_does_not_depend_on_its_company(
    arrays: Arrays, method: str, rescale: str, combine: str
) -> None:
    alone = [
        model(method, {task: arrays[task]}, rescale=rescale, combine="sum")
        for task in sorted(arrays)
    ]
    found = model(method, arrays, rescale=rescale, combine=combine)
    total = {name: np.sum([kept[name] for kept in alone], axis=0) for name in SHAPES}
    expected = total if combine == "sum" else elected(alone)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-13, atol=1e-13)


@settings(max_examples=30)
@given(arrays=task_vectors(), method=st.sampled_from(["dare", "della"]))
def test_what_is_kept_is_rescaled(arrays: Arrays, method: str) -> None:
    own = {"x": arrays["x"]}
    plain = model(method, own, rescale="none")
    inverse, restored = model(method, own), model(method, own, rescale="l1")
    for name, entries in own["x"].items():
        kept = plain[name] != 0
        assert (plain[name][kept] == entries[kept]).all()
        by = chances(method, entries).numpy()
        np.testing.assert_allclose(inverse[name], plain[name] / by, rtol=1e-14)
        before = np.abs(entries).sum() if kept.any() else 0.0
        assert np.abs(restored[name]).sum() == pytest.approx(before, rel=1e-13)
        assert ((restored[name] != 0) == kept).all()


@BOTH
def test_the_mean_over_seeds_is_task_arithmetic(method: str) -> None:
    random, seeds = np.random.default_rng(0), 2000
    arrays = {
        task: {n: random.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}
        for task in "xyz"
    }
    total = np.concatenate([sum(v[n] for v in arrays.values()).ravel() for n in SHAPES])
    spread = np.zeros_like(total, dtype=np.float64)
    for vector in arrays.values():
        # Var(m x / p) = x^2 (1 - p) / p.
        by = [np.broadcast_to(chances(method, vector[n]).numpy(), SHAPES[n]) for n in SHAPES]
        odds = np.concatenate([((1 - p) / p).ravel() for p in by])
        spread += np.concatenate([vector[n].ravel() for n in SHAPES]).astype(float) ** 2 * odds
    base = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    experts = {
        task: {n: torch.from_numpy(np.array(a)).double() for n, a in v.items()}
        for task, v in arrays.items()
    }
    mean = np.zeros_like(spread)
    for seed in range(seeds):
        found = merge(method, base, experts, 1.0, seed=seed)
        mean += np.concatenate([found[n].numpy().ravel() for n in SHAPES]) / seeds
    errors = (mean - total) / np.sqrt(spread / seeds)
    assert np.abs(errors).max() < 4
    assert 0.5 < np.square(errors).mean() < 1.7


@BOTH
def test_draws_differ_between_tasks_tensors_and_seeds(method: str) -> None:
    ones = {name: np.ones((40,)) for name in ("a", "b")}
    base = {name: torch.zeros(40, dtype=torch.float64) for name in ones}
    expert = {name: torch.ones(40, dtype=torch.float64) for name in ones}
    kept = {
        (task, seed, name): tuple((found[name] != 0).tolist())
        for task in "xy"
        for seed in (0, 1)
        for found in [merge(method, base, {task: expert}, 1.0, seed=seed)]
        for name in ones
    }
    assert len(set(kept.values())) == len(kept) == 8


def test_dare_keeps_as_often_as_it_says_and_less_of_the_same_when_it_drops_more() -> None:
    entries = torch.ones(200, 500)
    before = torch.ones(200, 500, dtype=torch.bool)
    for drop in (0.1, 0.5, 0.9, 0.99):
        kept = sample(entries, chances("dare", np.ones(1), drop=drop), 7, "none") != 0
        share, error = float(kept.double().mean()), (drop * (1 - drop) / kept.numel()) ** 0.5
        assert abs(share - (1 - drop)) < 4 * error
        assert not (kept & ~before).any()
        before = kept


def test_without_drops_they_are_task_arithmetic_and_untrimmed_ties() -> None:
    random = np.random.default_rng(1)
    arrays = {
        task: {n: random.integers(-8, 9, size=s) / 8 for n, s in SHAPES.items()} for task in "xyz"
    }
    for method, options in (("dare", {"drop": 0}), ("della", {"density": 1, "epsilon": 0})):
        for combine, same, said in (
            ("sum", "task_arithmetic", {}),
            ("ties", "ties", {"density": 1}),
        ):
            found = model(method, arrays, combine=combine, **options)
            expected = model(same, arrays, **said)
            assert all((found[name] == expected[name]).all() for name in SHAPES)


def test_della_ranks_within_rows_and_equal_entries_alike() -> None:
    found = chances("della", np.array([[1.0, -3, 2, 0, 4], [2, 2, -2, 2, 2], [0, 0, 1, 1, 5]]))
    ranks = np.array([[1, 3, 2, 0, 4], [2, 2, 2, 2, 2], [0.5, 0.5, 2.5, 2.5, 4]])
    np.testing.assert_allclose(found.numpy(), 0.15 + 0.3 * ranks / 4, rtol=1e-14)
    # A kernel's row is all that one output reads; a vector is one row; one entry has no rank.
    kernel = chances("della", np.arange(12.0).reshape(2, 3, 2, 1), density=0.5, epsilon=0.25)
    expected = np.tile(np.linspace(0.25, 0.75, 6), 2).reshape(2, 3, 2, 1)
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-14)
    assert chances("della", np.array([5.0, 1.0])).tolist() == pytest.approx([0.45, 0.15])
    assert chances("della", np.array(2.0)).item() == pytest.approx(0.3)
    assert chances("della", np.zeros((3, 1))).numpy() == pytest.approx(np.full((3, 1), 0.3))
    assert chances("della", np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.1), (0.9, 0.15), (1, 0.1)])
def test_della_refuses_what_is_no_probability(density: float, epsilon: float) -> None:
    state = {"w": torch.zeros(3)}
    with pytest.raises(ConfigError, match="it is the probability with which a row's"):
        merge("della", state, {"x": {"w": torch.ones(3)}}, density=density, epsilon=epsilon)


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("dare", "drop", 1), ("dare", "drop", -0.1), ("dare", "combine", "mean"),
        ("della", "density", 0), ("della", "epsilon", 0.5), ("della", "rescale", "l2"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(method: str, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"option '{option}' of merge method '{method}'"):
        MergeRecipe.of(method, {option: value})


@BOTH
def test_sums_can_pass_by_and_elections_need_the_whole_model(method: str) -> None:
    found = [MergeRecipe.of(method, {"combine": each}).scope for each in ("sum", "ties")]
    assert found == ["tensor", "model"]
