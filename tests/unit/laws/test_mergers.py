"""The laws that every registered merge method keeps, whatever it computes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch

from taskgrid.errors import ConfigError
from taskgrid.merging import merge, merge_per_task, methods
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.merging.walks import walk
from taskgrid.store.weights import State, digest_state
from taskgrid.vectors import subtract
from tests.unit.example_mergers import TASKS, given_to, near, near_by_factors, sources_of

RECIPES = {name: MergeRecipe.of(name, {}) for name in methods()}
FEATURES = [name for name, recipe in RECIPES.items() if recipe.card.gives == "features"]
WEIGHTS = [name for name, recipe in RECIPES.items() if recipe.card.gives in ("model", "per_task")]
SCALED = [name for name in WEIGHTS if RECIPES[name].card.coefficient != "none"]
PER_TASK = [name for name in WEIGHTS if RECIPES[name].per_task]
LOGITS = [name for name in methods() if name not in WEIGHTS + FEATURES]
EVERY = pytest.mark.parametrize("method", WEIGHTS)
MATRIX = "transformer.resblocks.0.mlp.c_fc.weight"


def merged_by(method: str) -> tuple[str, ...]:
    """As many tasks as a method takes."""
    return TASKS[: RECIPES[method].card.tasks]


def subsets_of(method: str) -> list[tuple[str, ...]]:
    own = RECIPES[method].card.tasks
    sizes = range(1, 5) if own is None else [own]
    return sorted(s for k in sizes for s in itertools.combinations(TASKS, k))


def make_base(dtype: torch.dtype = torch.float32) -> State:
    generator = torch.Generator().manual_seed(1)
    shapes = {"conv1.weight": (4, 3, 2, 2), "ln.bias": (5,), MATRIX: (5, 7), "frozen": (3,)}
    base = {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()
    }
    return base | {"counter": torch.tensor([5])}


def make_experts(base: State, method: str) -> dict[str, State]:
    if RECIPES[method].card.factors:
        return {task: near_by_factors(base, seed) for seed, task in enumerate(TASKS)}
    experts = {task: near(base, seed) for seed, task in enumerate(TASKS)}
    # What fine-tuning left alone: in all of them, in one, one entry.
    for state in experts.values():
        state["frozen"] = base["frozen"].clone()
    experts["dtd"]["ln.bias"] = base["ln.bias"].clone()
    experts["cars"][MATRIX][0, 0] = base[MATRIX][0, 0]
    return experts


@pytest.fixture
def base() -> State:
    return make_base()


@pytest.fixture
def experts(base: State, method: str) -> dict[str, State]:
    return make_experts(base, method)


@pytest.fixture
def vectors(base: State, experts: dict[str, State]) -> dict[str, State]:
    return {task: subtract(base, expert, task) for task, expert in experts.items()}


def merged(
    method: str,
    base: State,
    experts: Mapping[str, State],
    scale: float | dict[str, float] = 1.0,
    seed: int = 0,
) -> dict[str, State]:
    """All models that a method gives, by task."""
    own = merged_by(method)
    experts = {task: expert for task, expert in experts.items() if task in own}
    scale = {task: scale[task] for task in own} if isinstance(scale, dict) else scale
    given = given_to(RECIPES[method], base, own)
    if not RECIPES[method].per_task:
        return {"": merge(method, base, experts, scale, seed=seed, **given)}
    return merge_per_task(method, base, experts, scale, seed=seed, **given)


def digests(found: Mapping[str, State]) -> dict[str, str]:
    return {task: digest_state(state) for task, state in found.items()}


def applied(
    recipe: MergeRecipe, base: State, prepared: State, subset: tuple[str, ...]
) -> list[State]:
    asked = subset if recipe.per_task else (None,)
    return [recipe.apply(base, prepared, 1.0, task=task) for task in asked]


@EVERY
def test_the_order_of_tasks_does_not_matter(
    method: str, base: State, experts: dict[str, State]
) -> None:
    first = digests(merged(method, base, experts))
    for order in itertools.islice(itertools.permutations(experts), 1, 24, 5):
        assert digests(merged(method, base, {task: experts[task] for task in order})) == first


@EVERY
def test_merging_twice_gives_the_same_and_only_drawing_depends_on_the_seed(
    method: str, base: State, experts: dict[str, State]
) -> None:
    first = digests(merged(method, base, experts))
    assert digests(merged(method, base, experts)) == first
    other = digests(merged(method, base, experts, seed=1))
    assert (other != first) == RECIPES[method].card.stochastic


@EVERY
@pytest.mark.parametrize("keep_bytes", [0, 3000, 10**7])
def test_a_walk_has_the_bits_of_each_subset_alone(
    method: str, base: State, vectors: dict[str, State], keep_bytes: int
) -> None:
    recipe = RECIPES[method]
    sources = sources_of(recipe, base, vectors)
    take = walk(recipe, base, sources, keep_bytes)
    weights = [{}] if recipe.card.coefficient == "none" else [{}, dict.fromkeys(TASKS, -0.3), {}]
    weights = [each | ({"dtd": 1.0} if each else {}) for each in weights]
    subsets = subsets_of(method)
    for subset, each in itertools.product([*subsets, *subsets[::-3]], weights):
        named = {task: each[task] for task in subset if each}
        found, alone = take(subset, named), recipe.prepare(base, sources, subset, named)
        assert found.keys() == alone.keys()
        for name, tensor in alone.items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("method", [n for n in SCALED if RECIPES[n].card.coefficient == "scale"])
def test_lambda_zero_is_the_base_bit_for_bit(
    method: str, base: State, experts: dict[str, State]
) -> None:
    assert set(digests(merged(method, base, experts, 0.0)).values()) == {digest_state(base)}


@EVERY
def test_a_merge_is_not_the_base(method: str, base: State, experts: dict[str, State]) -> None:
    assert digest_state(base) not in digests(merged(method, base, experts)).values()


@EVERY
def test_apply_writes_in_place_and_leaves_prepared_alone(
    method: str, base: State, vectors: dict[str, State]
) -> None:
    recipe = RECIPES[method]
    tasks = merged_by(method)
    prepared = recipe.prepare(base, sources_of(recipe, base, vectors), tasks)
    before = digest_state(prepared)
    out = {name: torch.full_like(tensor, 9) for name, tensor in base.items()}
    places = {name: tensor.data_ptr() for name, tensor in out.items()}
    scales = (0.3, 1.0, 0.0, 0.3) if method in SCALED else (1.0,)
    # Back and forth, each as if it were the first.
    for scale, task in itertools.product(scales, tasks if recipe.per_task else (None,)):
        fresh = recipe.apply(base, prepared, scale, task=task)
        assert recipe.apply(base, prepared, scale, task=task, out=out) is out
        assert {name: tensor.data_ptr() for name, tensor in out.items()} == places
        assert digest_state(out) == digest_state(fresh)
    assert digest_state(prepared) == before


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_keys_shapes_dtypes_and_inputs_are_kept_and_no_memory_is_shared(
    method: str, dtype: torch.dtype
) -> None:
    base = make_base(dtype)
    experts = make_experts(base, method)
    before = digest_state(base), digests(experts)
    for found in merged(method, base, experts).values():
        assert {n: (t.shape, t.dtype) for n, t in found.items()} == {
            n: (t.shape, t.dtype) for n, t in base.items()
        }
        assert torch.equal(found["counter"], base["counter"])
        assert torch.equal(found["frozen"], base["frozen"])
        assert all(torch.isfinite(tensor).all() for tensor in found.values())
        for tensor in found.values():
            tensor.zero_()
    assert (digest_state(base), digests(experts)) == before


@pytest.mark.parametrize("method", SCALED)
def test_one_coefficient_for_all_is_lambda(
    method: str, base: State, experts: dict[str, State]
) -> None:
    named = digests(merged(method, base, experts, dict.fromkeys(experts, 0.3)))
    assert named == digests(merged(method, base, experts, 0.3))


# Of gradient matching they are weights, which stand below the fraction too.
@pytest.mark.parametrize("method", [name for name in SCALED if name != "ubgm"])
def test_coefficients_scale_the_vectors(
    method: str, base: State, vectors: dict[str, State]
) -> None:
    # Powers of two, which round nothing.
    recipe, named = RECIPES[method], {"cars": 2.0, "dtd": 1.0, "mnist": -0.5, "svhn": 4.0}
    scaled = {t: {k: d * named[t] for k, d in vector.items()} for t, vector in vectors.items()}
    every = subsets_of(method)
    for subset in (every[0], every[-1], merged_by(method)):
        own = {task: named[task] for task in subset}
        by_point = recipe.prepare(base, sources_of(recipe, base, vectors), subset, own)
        by_hand = recipe.prepare(base, sources_of(recipe, base, scaled), subset)
        for one, other in zip(
            applied(recipe, base, by_point, subset),
            applied(recipe, base, by_hand, subset),
            strict=True,
        ):
            assert digest_state(one) == digest_state(other)


@pytest.mark.parametrize("method", [name for name in WEIGHTS if name not in SCALED])
def test_without_a_coefficient_other_points_are_refused(
    method: str, base: State, experts: dict[str, State]
) -> None:
    for scale in (0.5, dict.fromkeys(experts, 0.5)):
        with pytest.raises(ConfigError, match=r"has no coefficient; its only point is 1\.00"):
            merged(method, base, experts, scale)


@pytest.mark.parametrize("method", PER_TASK)
def test_a_method_with_a_model_per_task_has_no_single_one(
    method: str, base: State, experts: dict[str, State]
) -> None:
    with pytest.raises(ConfigError, match="call merge_per_task"):
        merge(method, base, experts)
    assert list(merged(method, base, experts)) == sorted(experts)


@pytest.mark.parametrize("method", [name for name in WEIGHTS if name not in PER_TASK])
def test_a_single_model_serves_every_task(
    method: str, base: State, experts: dict[str, State]
) -> None:
    own = {task: experts[task] for task in merged_by(method)}
    given = given_to(RECIPES[method], base, sorted(own))
    found = digests(merge_per_task(method, base, own, **given))
    assert found == dict.fromkeys(sorted(own), digest_state(merged(method, base, own)[""]))


@EVERY
def test_prepared_tensors_are_named_for_a_file(
    method: str, base: State, vectors: dict[str, State]
) -> None:
    recipe = RECIPES[method]
    tasks = merged_by(method)
    prepared = recipe.prepare(base, sources_of(recipe, base, vectors), tasks)
    assert prepared and all(isinstance(tensor, torch.Tensor) for tensor in prepared.values())
    again = {name: tensor.clone() for name, tensor in sorted(prepared.items())}
    for one, other in zip(
        applied(recipe, base, prepared, tasks), applied(recipe, base, again, tasks), strict=True
    ):
        assert digest_state(one) == digest_state(other)


@pytest.mark.parametrize(
    "method", [name for name in WEIGHTS if RECIPES[name].card.tasks is not None]
)
def test_subsets_of_another_size_are_refused(
    method: str, base: State, vectors: dict[str, State]
) -> None:
    recipe = RECIPES[method]
    for count in {1, 2, 3, 4} - {recipe.card.tasks}:
        with pytest.raises(ConfigError, match=rf"merges {recipe.card.tasks} tasks, but cars.*has"):
            recipe.prepare(base, sources_of(recipe, base, vectors), TASKS[:count])


@pytest.mark.parametrize("method", FEATURES)
def test_methods_on_features_have_no_model_to_hand_out(
    method: str, base: State, experts: dict[str, State]
) -> None:
    for merges in (merge, merge_per_task):
        with pytest.raises(ConfigError, match="no model to hand out or export; evaluate it"):
            merges(method, base, experts, 1.0)


@pytest.mark.parametrize("method", LOGITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_methods_on_logits(method: str, dtype: torch.dtype) -> None:
    recipe = RECIPES[method]
    generator = torch.Generator().manual_seed(0)
    logits = {task: torch.randn(6, 3, generator=generator, dtype=dtype) for task in TASKS}
    before = {task: one.clone() for task, one in logits.items()}
    found = recipe.logit_merger.combine(logits, recipe.options)
    assert found.shape == (6, 3) and found.dtype == dtype
    assert torch.equal(recipe.logit_merger.combine(logits, recipe.options), found)
    found.zero_()
    assert all(torch.equal(logits[task], before[task]) for task in TASKS)
    with pytest.raises(ConfigError, match="merges logits, not weights"):
        recipe.prepare({}, Sources(lambda task: {}), ["dtd"])
