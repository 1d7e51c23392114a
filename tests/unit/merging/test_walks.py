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

from taskgrid.merging import MergeContext, Prepared, get_merger
from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.algebra import Factored, Fold
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.walks import walk
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State

TASKS = "abcdef"
SUBSETS = sorted(s for k in range(1, 7) for s in itertools.combinations(TASKS, k))
SHAPE = (5, 4)
SUM_BYTES = 8 * 20
KEPT_TRIM = 8
"""Entries that a trim keeps, of twenty."""


def vector(task: str) -> State:
    generator = torch.Generator().manual_seed(ord(task))
    return {"w": torch.randn(*SHAPE, generator=generator)}


def array(task: str) -> NDArray[np.float64]:
    return vector(task)["w"].double().numpy()


class Largest(Fold, Line):
    """Keeps the entry of largest magnitude."""

    name = "largest"

    def begin(self, lifted: Prepared) -> Prepared:
        return {key: tensor.clone() for key, tensor in lifted.items()}

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        larger = {k: torch.where(v.abs() > total[k].abs(), v, total[k]) for k, v in lifted.items()}
        return {k: total[k].copy_(v) for k, v in larger.items()} if reuse else larger


class Elected(Fold, Line):
    """Trims each vector, elects signs by mass, averages what agrees: sums and counts by sign."""

    name = "elected"

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

    def finish(self, total: Prepared, tasks: Sequence[str]) -> Prepared:
        up, down = total["w sum 1"], total["w sum -1"]
        mean_up = up / total["w count 1"].clamp(min=1)
        mean_down = down / total["w count -1"].clamp(min=1)
        return {"w": torch.where(up >= down, mean_up, -mean_down)}


class Truncated(Factored, Line):
    """Sums the best approximations of rank one."""

    name = "truncated"

    def lift(self, alone: MergeContext) -> Prepared:
        (vector,) = alone.vectors.values()
        u, s, v = torch.linalg.svd(vector["w"].double(), full_matrices=False)
        return {"u": u[:, 0] * s[0], "v": v[0]}

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        assert list(factors) == list(context.vectors)
        return {"w": sum(torch.outer(f["u"], f["v"]) for f in factors.values())}  # type: ignore[dict-item]


class Anew(Line):
    """Shares nothing: the product of all vectors."""

    name = "anew"

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
    get_merger("task_arithmetic"),
    get_merger("average"),
    Largest(),
    Elected(),
    Truncated(),
    Anew(),
]
EVERY_KIND = pytest.mark.parametrize("merger", MERGERS, ids=lambda m: m.name)


def alone(merger: Any, subset: Sequence[str]) -> Prepared:
    context = MergeContext({}, {task: vector(task) for task in subset})
    prepared: Prepared = merger.prepare(context)
    return prepared


@EVERY_KIND
def test_preparations_are_what_their_formula_says(merger: Any) -> None:
    take = walk(MergeRecipe(merger, Options()), {}, vector, 10**6)
    for subset in SUBSETS:
        expected = ORACLES[merger.name]([array(task) for task in subset])
        np.testing.assert_allclose(take(subset)["w"].numpy(), expected, rtol=1e-9, atol=1e-12)


@EVERY_KIND
@settings(max_examples=25, deadline=None)
@given(
    asked=st.lists(st.sampled_from(SUBSETS), min_size=1, max_size=20),
    room=st.sampled_from([0, 2 * SUM_BYTES, 9 * SUM_BYTES, 10**6]),
)
def test_every_walk_gives_the_bits_of_each_subset_alone(
    merger: Any, asked: list[tuple[str, ...]], room: int
) -> None:
    take = walk(MergeRecipe(merger, Options()), {}, vector, room)
    for subset in asked:
        found, expected = take(subset), alone(merger, subset)
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
    take = walk(MergeRecipe(merger, Options()), {}, vector, 10**6)
    for subset in SUBSETS:
        take(subset)
    # Single tasks begin anew.
    assert merger.calls == {"lift": len(TASKS), "step": len(SUBSETS) - len(TASKS)}


def test_without_room_nothing_is_kept_but_one_total() -> None:
    merger = Counted()
    take = walk(MergeRecipe(merger, Options()), {}, vector, 0)
    take("abc")
    take("abd")
    assert merger.calls == {"lift": 6, "in place": 4}


def test_room_is_had_again_when_the_walk_turns() -> None:
    merger = Counted()
    total = 4 * SUM_BYTES
    # For five tasks' liftings and two beginnings.
    take = walk(MergeRecipe(merger, Options()), {}, vector, (5 + 2) * total)
    for subset in ("abc", "abd", "acd", "bcd", "cde"):
        take(subset)
    assert merger.calls["in place"] == 0
    take("abcd")
    assert merger.calls["in place"] == 1


def test_a_vector_that_needs_no_lifting_takes_no_room() -> None:
    seen = []

    class Watched(type(get_merger("task_arithmetic"))):  # type: ignore[misc]
        def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
            seen.append(reuse)
            return super().step(total, lifted, reuse=reuse)  # type: ignore[no-any-return]

    held = {task: vector(task) for task in TASKS}
    take = walk(MergeRecipe(Watched(), Options()), {}, held.__getitem__, 2 * SUM_BYTES)
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
    take = walk(MergeRecipe(merger, Options()), {}, vector, 10**6)
    for subset in SUBSETS:
        take(subset)
    assert calls == dict.fromkeys(TASKS, 1)
