"""Walks over subsets: the bits of each subset alone, and nothing done twice that can be shared.

The methods here stand for their kinds: a sum, a maximum, a trimmed election by four accumulators, and
a truncated decomposition per task; each is compared with a few lines of NumPy that know no walk.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskgrid.merging import MergeContext, Prepared
from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.algebra import Factored, Fold
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.merging.walks import Walk, walk
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State
from tests.unit.example_mergers import recipe_of

TASKS = "abcdef"
SUBSETS = sorted(s for k in range(1, 7) for s in itertools.combinations(TASKS, k))
SHAPE = (5, 4)
SUM_BYTES = 8 * 20
POINT = dict(zip(TASKS, (0.3, 1.0, -0.7, 1.0, 0.0, 2.0), strict=True))
KEPT_TRIM = 8
"""Entries that a trim keeps, of twenty."""


def vector(task: str) -> State:
    generator = torch.Generator().manual_seed(ord(task))
    return {"w": torch.randn(*SHAPE, generator=generator)}


def array(task: str) -> NDArray[np.float64]:
    return vector(task)["w"].double().numpy()


class Largest(Fold, Line):
    """Keeps the entry of largest magnitude."""

    def begin(self, lifted: Prepared) -> Prepared:
        return {key: tensor.clone() for key, tensor in lifted.items()}

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        larger = {k: torch.where(v.abs() > total[k].abs(), v, total[k]) for k, v in lifted.items()}
        return {k: total[k].copy_(v) for k, v in larger.items()} if reuse else larger


class Elected(Fold, Line):
    """Trims each vector, elects signs by mass, averages what agrees: sums and counts by sign."""

    def lift(self, alone: MergeContext) -> Prepared:
        (vector,) = alone.vectors.values()
        lifted = {}
        for key, tensor in vector.items():
            least = tensor.abs().flatten().topk(KEPT_TRIM).values[-1]
            kept = torch.where(tensor.abs() >= least, tensor, 0).double()
            for sign in (1, -1):
                lifted[f"{key} sum {sign}"] = (kept * sign).clamp(min=0)
                lifted[f"{key} count {sign}"] = (kept * sign > 0).double()
        return lifted

    def begin(self, lifted: Prepared) -> Prepared:
        return {key: tensor.clone() for key, tensor in lifted.items()}

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        if reuse:
            return {key: tensor.add_(lifted[key]) for key, tensor in total.items()}
        return {key: tensor + lifted[key] for key, tensor in total.items()}

    def finish(self, total: Prepared, tasks: Sequence[str], options: Options) -> Prepared:
        up, down = total["w sum 1"], total["w sum -1"]
        mean_up = up / total["w count 1"].clamp(min=1)
        mean_down = down / total["w count -1"].clamp(min=1)
        return {"w": torch.where(up >= down, mean_up, -mean_down)}


class Truncated(Factored, Line):
    """Sums the best approximations of rank one."""

    def lift(self, alone: MergeContext) -> Prepared:
        (vector,) = alone.vectors.values()
        u, s, v = torch.linalg.svd(vector["w"].double(), full_matrices=False)
        return {"u": u[:, 0] * s[0], "v": v[0]}

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        assert list(factors) == list(context.vectors)
        return {"w": sum(torch.outer(f["u"], f["v"]) for f in factors.values())}  # type: ignore[dict-item]


class Anew(Line):
    """Shares nothing: the product of all vectors."""

    def prepare(self, context: MergeContext) -> Prepared:
        product = torch.ones(SHAPE, dtype=torch.float64)
        for vector in context.vectors.values():
            product = product * vector["w"]
        return {"w": product}


def largest(arrays: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    stacked = np.stack(arrays)
    at = np.abs(stacked).argmax(axis=0)
    return np.take_along_axis(stacked, at[None], axis=0)[0]


def elected(arrays: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    trimmed = [np.where(np.abs(a) >= np.sort(np.abs(a).ravel())[-KEPT_TRIM], a, 0) for a in arrays]
    out = np.zeros(SHAPE)
    for place in np.ndindex(SHAPE):
        entries = [a[place] for a in trimmed if a[place] != 0]
        sign = 1.0 if sum(entries) >= 0 else -1.0
        agreeing = [entry for entry in entries if entry * sign > 0]
        out[place] = np.mean(agreeing) if agreeing else 0.0
    return out


def truncated(arrays: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = np.zeros(SHAPE)
    for a in arrays:
        # The leading right singular vector by power iteration.
        v = np.ones(SHAPE[1])
        for _ in range(2000):
            v = a.T @ (a @ v)
            v /= np.linalg.norm(v)
        total += np.outer(a @ v, v)
    return total


ORACLES = {
    "task_arithmetic": lambda arrays: np.sum(arrays, axis=0),
    "average": lambda arrays: np.mean(arrays, axis=0),
    "largest": largest,
    "elected": elected,
    "truncated": truncated,
    "anew": lambda arrays: np.prod(arrays, axis=0),
}
MERGERS: list[Any] = [
    MergeRecipe.of("task_arithmetic", {}).merger,
    MergeRecipe.of("average", {}).merger,
    Largest(),
    Elected(),
    Truncated(),
    Anew(),
]
OPTIONS = {"weights": None, "normalize": False}
EVERY_KIND = pytest.mark.parametrize(("name", "merger"), list(zip(ORACLES, MERGERS, strict=True)))


def walking(merger: Any, room: int, source: Any = vector) -> Walk:
    return walk(recipe_of(merger, options=OPTIONS), {}, Sources(source), room)


def alone(merger: Any, subset: Sequence[str], named: dict[str, float]) -> Prepared:
    recipe = recipe_of(merger, options=OPTIONS)
    return recipe.prepare({}, Sources(vector), subset, named)


@EVERY_KIND
def test_preparations_are_what_their_formula_says(name: str, merger: Any) -> None:
    take = walking(merger, 10**6)
    for subset in SUBSETS:
        expected = ORACLES[name]([array(task) for task in subset])
        np.testing.assert_allclose(take(subset)["w"].numpy(), expected, rtol=1e-9, atol=1e-12)


@EVERY_KIND
@settings(max_examples=25)
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(SUBSETS), st.sampled_from([{}, POINT])), min_size=1, max_size=20
    ),
    room=st.sampled_from([0, 2 * SUM_BYTES, 9 * SUM_BYTES, 10**6]),
)
def test_every_walk_gives_the_bits_of_each_subset_alone(
    name: str, merger: Any, asked: list[tuple[tuple[str, ...], dict[str, float]]], room: int
) -> None:
    take = walking(merger, room)
    for subset, point in asked:
        named = {task: point[task] for task in subset if point}
        found, expected = take(subset, named), alone(merger, subset, named)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


class Counted(Elected):
    """Counts its work."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def lift(self, alone: MergeContext) -> Prepared:
        self.calls["lift"] += 1
        return super().lift(alone)

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        self.calls["in place" if reuse else "step"] += 1
        return super().step(total, lifted, reuse=reuse)


def test_in_the_order_of_a_dictionary_each_subset_costs_one_step_and_each_task_one_lift() -> None:
    merger = Counted()
    take = walking(merger, 10**6)
    for subset in SUBSETS:
        take(subset)
    # Single tasks begin anew.
    assert merger.calls == {"lift": len(TASKS), "step": len(SUBSETS) - len(TASKS)}


def test_without_room_nothing_is_kept_but_one_total() -> None:
    merger = Counted()
    take = walking(merger, 0)
    take("abc")
    take("abd")
    assert merger.calls == {"lift": 6, "in place": 4}


def test_room_is_had_again_when_the_walk_turns() -> None:
    merger = Counted()
    total = 4 * SUM_BYTES
    # For five tasks' liftings and two beginnings.
    take = walking(merger, (5 + 2) * total)
    for subset in ("abc", "abd", "acd", "bcd", "cde"):
        take(subset)
    assert merger.calls["in place"] == 0
    take("abcd")
    assert merger.calls["in place"] == 1


def test_a_vector_that_needs_no_lifting_takes_no_room() -> None:
    seen = []

    class Watched(Largest):
        def begin(self, lifted: Prepared) -> Prepared:
            return {key: tensor.double() for key, tensor in lifted.items()}

        def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
            seen.append(reuse)
            return super().step(total, lifted, reuse=reuse)

    held = {task: vector(task) for task in TASKS}
    take = walking(Watched(), 2 * SUM_BYTES, held.__getitem__)
    take("abc")
    assert seen == [False, False]
    take("abcd")
    assert seen == [False, False, True]


def test_factors_are_made_once_per_task() -> None:
    merger = Truncated()
    calls: Counter[str] = Counter()
    lift = merger.lift

    def counting(context: MergeContext) -> Prepared:
        calls.update(list(context.vectors))
        return lift(context)

    merger.lift = counting  # type: ignore[method-assign]
    take = walking(merger, 10**6)
    for subset in SUBSETS:
        take(subset)
    assert calls == dict.fromkeys(TASKS, 1)


def test_points_with_coefficients_lift_each_weighted_vector_once() -> None:
    merger = Truncated()
    calls: Counter[str] = Counter()
    lift = merger.lift

    def counting(context: MergeContext) -> Prepared:
        calls.update(list(context.vectors))
        return lift(context)

    merger.lift = counting  # type: ignore[method-assign]
    take = walking(merger, 10**6)
    for first, second in itertools.product([0.1, 0.2, 0.3], [0.5, 1.0]):
        take(("a", "b"), {"a": first, "b": second})
    take(("b",))
    assert calls == {"a": 3, "b": 2}


def test_a_method_that_weighs_lifts_vectors_as_they_are() -> None:
    class Weighing(Truncated):
        weighs = True

        def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
            return {
                "w": sum(
                    context.coefficient(task) * torch.outer(f["u"], f["v"])
                    for task, f in factors.items()
                )
            }  # type: ignore[dict-item]

    point = {"a": 0.3, "b": -0.7}
    found = walking(Weighing(), 10**6)(("a", "b"), point)["w"]
    expected = 0.3 * truncated([array("a")]) - 0.7 * truncated([array("b")])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(found, alone(Weighing(), ("a", "b"), point)["w"])


def test_what_was_learned_is_asked_for_whole_subsets_only() -> None:
    class Learning(Truncated):
        def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
            assert context.learned is not None and list(context.learned) == list(context.vectors)
            return super().join(factors, context)

    asked = []

    def learned(tasks: tuple[str, ...]) -> dict[str, torch.Tensor]:
        asked.append(tasks)
        return {task: torch.tensor(1.0) for task in tasks}

    recipe = recipe_of(Learning(), learned=True)
    take = walk(recipe, {}, Sources(vector, learned=learned), 10**6)
    take(("a", "b"))
    recipe.prepare({}, Sources(vector, learned=learned), ("a", "b"))
    assert asked == [("a", "b")] * 2
