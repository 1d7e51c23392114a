"""The lattice of eight tasks: walks give what direct merges give, and their cost is counted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from taskgrid.merging import methods
from taskgrid.merging.bases.additive import Additive
from taskgrid.merging.bases.algebra import Factored, Lifted
from taskgrid.merging.methods import ties as ties_module
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Prepared
from taskgrid.merging.walks import Walk, walk
from taskgrid.store.weights import State
from taskgrid.vectors import subtract
from tests.unit.example_mergers import near, near_by_factors, sources_of

TASKS = "abcdefgh"
SUBSETS = sorted(s for k in range(1, 9) for s in itertools.combinations(TASKS, k))
BLOCK = "transformer.resblocks.0"
SHAPES = {
    f"{BLOCK}.ln_1.bias": (5,),
    f"{BLOCK}.mlp.c_fc.weight": (9, 12),
    f"{BLOCK}.attn.out_proj.weight": (12, 10),
}
MATRICES = 2
AMPLE = 10**7


def recipe_of(method: str) -> MergeRecipe:
    """A method at its defaults, but for how long it optimises."""
    card = MergeRecipe.of(method, {}).card
    return MergeRecipe.of(method, {"steps": 2} if "steps" in card.options else {})


GIVES_WEIGHTS = ("model", "per_task")
WEIGHTS = [name for name in methods() if MergeRecipe.of(name, {}).card.gives in GIVES_WEIGHTS]


def given_to(recipe: MergeRecipe) -> tuple[State, Any]:
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    make: Callable[..., State] = near_by_factors if recipe.card.factors else near
    experts = {task: make(base, seed) for seed, task in enumerate(TASKS)}
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    return base, sources_of(recipe, base, vectors)


def subsets_of(recipe: MergeRecipe) -> list[tuple[str, ...]]:
    return [s for s in SUBSETS if recipe.card.tasks in (None, len(s))]


def whole_lattice(method: str) -> tuple[MergeRecipe, Walk]:
    recipe = recipe_of(method)
    base, sources = given_to(recipe)
    return recipe, walk(recipe, base, sources, AMPLE)


@pytest.mark.parametrize("method", WEIGHTS)
def test_a_walk_over_all_subsets_gives_what_direct_merges_give(method: str) -> None:
    recipe, take = whole_lattice(method)
    base, sources = given_to(recipe)
    # Nothing is shared where a walk is the direct merge itself.
    shares = isinstance(recipe.merger, (Additive, Lifted))
    scale = 1.0 if recipe.card.coefficient == "none" else 0.7
    for place, subset in enumerate(subsets_of(recipe)[:: 1 if shares else 20]):
        found, alone = take(subset), recipe.prepare(base, sources, subset)
        assert found.keys() == alone.keys()
        # Walks take the steps of the subset alone, and so have its bits.
        assert all(torch.equal(found[key], alone[key]) for key in alone), subset
        for task in () if place % 20 else subset if recipe.per_task else (None,):
            one = recipe.apply(base, found, scale, task=task)
            other = recipe.apply(base, alone, scale, task=task)
            for name in SHAPES:
                torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-5)


class Counting:
    """Counts calls of a function, and keeps what they were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        self.inputs: list[tuple[Any, ...]] = []
        function = getattr(where, name)

        def counting(*given: Any, **named: Any) -> Any:
            self.inputs.append(given)
            return function(*given, **named)

        monkeypatch.setattr(where, name, counting)


@pytest.mark.parametrize(("combine", "accumulators"), [("mean", 4), ("max", 4), ("sum", 2)])
def test_ties_takes_four_accumulators_from_a_smaller_subset(
    combine: str, accumulators: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = MergeRecipe.of("ties", {"combine": combine})
    base, sources = given_to(recipe)
    added = Counting(monkeypatch, ties_module, "taken_in")
    trimmed = Counting(monkeypatch, ties_module, "thresholds")
    take = walk(recipe, base, sources, AMPLE)
    for subset in SUBSETS:
        take(subset)
    assert len(trimmed.inputs) == len(TASKS)
    counted = sum(len(more) for _, more in added.inputs)
    # Single tasks begin anew.
    assert counted == accumulators * len(SHAPES) * (len(SUBSETS) - len(TASKS))


def test_fisher_adds_two_sums() -> None:
    recipe, _ = whole_lattice("fisher")
    base, sources = given_to(recipe)
    calls: Counter[str] = Counter()

    class Counted(type(recipe.merger)):  # type: ignore[misc]
        def lift(self, alone: Any) -> Prepared:
            calls["lift"] += 1
            return super().lift(alone)  # type: ignore[no-any-return]

        def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
            calls["sums"] += sum(len(pair) for pair in lifted.values())
            return super().step(total, lifted, reuse=reuse)  # type: ignore[no-any-return]

    take = walk(MergeRecipe("fisher", recipe.card, Counted(), recipe.options), base, sources, AMPLE)
    for subset in SUBSETS:
        take(subset)
    assert calls == {
        "lift": len(TASKS),
        "sums": 2 * len(SHAPES) * (len(SUBSETS) - len(TASKS)),
    }


@pytest.mark.parametrize(
    "method",
    [name for name in ("tsv_m", "knots", "core_space") if name in WEIGHTS],
)
def test_what_factors_once_per_task_solves_small_problems_per_subset(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, take = whole_lattice(method)
    assert isinstance(recipe.merger, Factored)
    for task in TASKS:
        take((task,))
    lifted = Counting(monkeypatch, type(recipe.merger), "lift")
    full = Counting(monkeypatch, torch.linalg, "svd")
    squares = Counting(monkeypatch, torch.linalg, "eigh")
    for subset in SUBSETS:
        if len(subset) > 1:
            full.inputs.clear()
            squares.inputs.clear()
            take(subset)
            sides = [max(matrix.shape) for (matrix, *_) in squares.inputs]
            if method == "tsv_m":
                # Two polar factors per matrix, of as many directions as all tasks take together.
                assert not full.inputs and len(sides) in (0, 2 * MATRICES)
                assert all(side <= 10 for side in sides)
            else:
                # One matrix (core_space: two) of one column per task and rank.
                assert not sides and len(full.inputs) == MATRICES * (1 + (method == "core_space"))
                assert all(min(m.shape) <= len(subset) for (m, *_) in full.inputs)
    assert not lifted.inputs


def test_a_lean_method_is_not_folded_where_no_total_has_room() -> None:
    recipe = MergeRecipe.of("ties", {})
    base, sources = given_to(recipe)
    total = (2 * 8 + 2 * 2) * sum(t.numel() for t in base.values())
    thresholds_of_all = 4 * len(SHAPES) * len(TASKS) + 10 * len(TASKS)
    for room in (0, total - 1, total + thresholds_of_all, AMPLE):
        take = walk(recipe, base, sources, room)
        for subset in SUBSETS[::7]:
            found, alone = take(subset), recipe.prepare(base, sources, subset)
            assert all(torch.equal(found[key], alone[key]) for key in alone)
